"""A head map is labelled by the paper's rule, and its file is read whole or refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from effivmt.errors import AdapterError
from effivmt.method.heads import HeadMap, label_heads, load_head_map, save_head_map


class TestHeadMap:
    def make(self) -> HeadMap:
        scores = np.random.default_rng(0).random((2, 3, 4))
        return label_heads(*scores, 1.25)

    def test_labels_follow_the_papers_rule(self):
        found = label_heads(np.array([[0.2, 0.25, 0.26]]), np.array([[0.2, 0.2, 0.2]]), 1.25)
        assert found.branch.tolist() == [["temporal", "spatial", "spatial"]]
        assert label_heads(np.array([[0.26]]), np.array([[0.2]]), 1.5).is_temporal.all()

    def test_round_trip_is_exact_in_any_row_order(self, tmp_path):
        made = self.make()
        save_head_map(tmp_path / "heads.parquet", made)
        table = pq.read_table(tmp_path / "heads.parquet")
        assert table.column_names == ["layer", "head", "spatial_score", "temporal_score", "branch"]
        pq.write_table(table.take(np.random.default_rng(1).permutation(12)), tmp_path / "shuffled.parquet")
        for name in ("heads.parquet", "shuffled.parquet"):
            found = load_head_map(tmp_path / name)
            assert np.array_equal(found.spatial, made.spatial) and np.array_equal(found.temporal, made.temporal)
            assert np.array_equal(found.is_temporal, made.is_temporal) and found.is_temporal.dtype == bool

    def test_bytes_are_deterministic(self, tmp_path):
        for name in ("a", "b"):
            save_head_map(tmp_path / name, self.make())
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    @pytest.mark.parametrize(
        "damage",
        ["missing", "truncated", "text", "column", "row", "duplicate", "branch", "null", "wrong_type", "empty"],
    )
    def test_damage_is_an_error(self, tmp_path, damage):
        path = tmp_path / "heads.parquet"
        save_head_map(path, self.make())
        table = pq.read_table(path)
        layer = table["layer"].to_pylist()
        changed = {
            "column": lambda: table.drop_columns("temporal_score"),
            "row": lambda: table.slice(0, 11),
            "duplicate": lambda: pa.concat_tables([table.slice(0, 10), table.slice(9, 1), table.slice(11, 1)]),
            "branch": lambda: table.set_column(4, "branch", pa.array(["left"] * 12)),
            "null": lambda: table.set_column(0, "layer", pa.array([None, *layer[1:]], pa.int32())),
            "wrong_type": lambda: table.set_column(0, "layer", pa.array([f"layer {i}" for i in layer])),
            "empty": lambda: table.slice(0, 0),
        }
        if damage == "missing":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[:-40])
        elif damage == "text":
            path.write_text("layer,head\n0,0\n")
        else:
            pq.write_table(changed[damage](), path)
        with pytest.raises(AdapterError, match=r"head map .*heads\.parquet"):
            load_head_map(path)

"""Catalogs are checked whole; the three formats mean the same."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from effivmt.catalog import Catalog, list_ignored, load_catalog
from effivmt.errors import CatalogError

ROW = {"clip": "a-1", "video": "v/a.mp4", "caption": "a red square", "prompts": ["a star", "a circle"]}
FULL = ROW | {"clip": "b_2", "class": "camera", "start": 0.5, "end": 2.5, "appearance_images": "looks", "seed": 7}


def write(folder: Path, rows: list, kind: str) -> Path:
    path = folder / f"catalog.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[_cell(row.get(name)) for name in names] for row in rows]
        path.write_text("\ufeff" + "\n".join(",".join(line) for line in [names, *cells]) + "\n", encoding="utf-8")
    return path


def _cell(value: object) -> str:
    return "" if value is None else " | ".join(value) if isinstance(value, list) else str(value)


def faults_of(folder: Path, *rows: object) -> str:
    with pytest.raises(CatalogError) as caught:
        load_catalog(write(folder, list(rows), "jsonl"))
    return str(caught.value)


class TestFormats:
    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_mean_the_same(self, tmp_path, kind):
        first, second = load_catalog(write(tmp_path, [{**dict.fromkeys(FULL), **ROW}, FULL], kind)).clips
        assert first.video == tmp_path / "v/a.mp4" and first.prompts == ("a star", "a circle")
        assert (first.start, first.end, first.seed, first.group) == (0.0, None, None, None)
        assert (second.start, second.end, second.seed, second.group) == (0.5, 2.5, 7, "camera")
        assert second.appearance_images == tmp_path / "looks"

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_have_an_image_for_each_prompt(self, tmp_path, kind):
        given = {"images": ["i/a.png", "i/b.png"], "prompts": ["", "a circle"]}
        (clip,) = load_catalog(write(tmp_path, [ROW | given], kind)).clips
        assert clip.images == (tmp_path / "i/a.png", tmp_path / "i/b.png") and clip.prompts == ("", "a circle")

    def test_need_no_prompt_where_they_have_images(self, tmp_path):
        path = tmp_path / "c.csv"
        path.write_text("clip,video,prompts,images\na,a.mp4,,a.png|b.png\nb,b.mp4,a star,\n", encoding="utf-8")
        first, second = load_catalog(path).clips
        assert first.prompts == ("", "") and len(first.images) == 2
        assert second.prompts == ("a star",) and second.images == ()

    def test_images_that_are_none_for_a_prompt_are_named(self, tmp_path):
        told = faults_of(tmp_path, ROW | {"images": ["a.png"]})
        assert "row 1, column prompts" in told and "expected one image for each prompt, not 1 for 2" in told
        told = faults_of(tmp_path, ROW | {"images": ["../a.png", "b.png"]})
        assert "column images: '../a.png' leaves the catalog's folder" in told
        assert "a prompt is empty; say what to render" in faults_of(tmp_path, ROW | {"prompts": ["a star", ""]})
        assert "column prompts: is missing" in faults_of(tmp_path, {"clip": "a", "video": "a.mp4"})

    def test_a_region_is_a_cell_or_a_list(self, tmp_path):
        path = tmp_path / "c.csv"
        path.write_text('clip,video,prompts,motion_of,region\na,a.mp4,a star,object,"4, 8,20,30.5"\n', encoding="utf-8")
        given = {"motion_of": "object", "region": [4, 8, 20, 30.5]}
        for catalog in (load_catalog(path), load_catalog(write(tmp_path, [ROW | given], "jsonl"))):
            (clip,) = catalog.clips
            assert clip.chosen and clip.motion_of == "object" and clip.region == (4, 8, 20, 30.5)

    def test_a_region_that_is_none_is_named(self, tmp_path):
        for region, motion_of, said in [
            ("1,2,3", "all", "column region: '1,2,3': expected the four numbers"),
            ("0,0,0,5", "all", "column region: .*width and a height above 0"),
            ("a,b,c,d", "all", "column region"),
            ([0, 0, 1, 1], "camera", "the camera's motion has no region"),
            (None, "nothing", "column motion_of"),
        ]:
            assert re.search(said, faults_of(tmp_path, ROW | {"region": region, "motion_of": motion_of}))

    def test_of_the_sample_catalog(self):
        catalog = load_catalog(Path(__file__).parents[2] / "data" / "catalog.csv")
        assert len(catalog.clips) >= 8
        assert all(clip.video.is_file() and len(clip.prompts) == 2 and clip.group for clip in catalog.clips)

    def test_a_bar_parts_prompts_with_or_without_spaces(self, tmp_path):
        (clip,) = load_catalog(write(tmp_path, [ROW | {"prompts": ["a|b ", "c|"]}], "csv")).clips
        assert clip.prompts == ("a", "b", "c")

    def test_empty_rows_of_a_spreadsheet_are_no_rows(self, tmp_path):
        path = write(tmp_path, [ROW], "csv")
        path.write_text(path.read_text(encoding="utf-8") + ",,,\n,,,\n", encoding="utf-8")
        assert len(load_catalog(path).clips) == 1

    @pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
    @pytest.mark.parametrize("first", ["", "sep={}\r\n"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_a_spreadsheet_may_part_and_encode_as_it_does(self, tmp_path, separator, first, encoding):
        rows = [("clip", "video", "caption", "prompts"), ("a", "v.mp4", '"grün, blau; \t"', "x|y")]
        text = first.format(separator[:1]) + "".join(separator.join(row) + "\r\n" for row in rows)
        (tmp_path / "c.csv").write_bytes(text.encode(encoding))
        (clip,) = load_catalog(tmp_path / "c.csv").clips
        assert (clip.clip, clip.caption, clip.prompts) == ("a", "grün, blau;", ("x", "y"))

    def test_nan_is_not_given(self, tmp_path):
        row = ROW | {"start": float("nan"), "seed": float("nan"), "class": float("nan"), "caption": None}
        for path in (
            write(tmp_path, [row], "jsonl"),
            write(tmp_path, [row | {"class": None}, ROW | {"clip": "b", "seed": 7.0}], "parquet"),
        ):
            clip = load_catalog(path).clips[0]
            assert (clip.start, clip.seed, clip.group, clip.caption) == (0.0, None, None, "")
        (tmp_path / "c.csv").write_text("clip,video,prompts,start,end,seed\na,v.mp4,p,nan,NaN,nan\n", encoding="utf-8")
        assert load_catalog(tmp_path / "c.csv").clips[0].seed is None

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_other_columns_are_ignored_and_named(self, tmp_path, kind):
        catalog = load_catalog(write(tmp_path, [ROW | {"note\x1b": "x", "": "0"}, FULL], kind))
        assert len(catalog.clips) == 2
        assert list_ignored(catalog).endswith("no columns of a catalog: note\\x1b, (a column without a name)")
        assert list_ignored(load_catalog(write(tmp_path, [ROW], kind))) == ""

    @pytest.mark.parametrize("line_end", ["\u2028", "\x85"])
    def test_a_line_of_json_ends_at_a_newline_alone(self, tmp_path, line_end):
        path = tmp_path / "c.jsonl"
        path.write_text(json.dumps(ROW | {"caption": f"a{line_end}b"}, ensure_ascii=False) + "\n", encoding="utf-8")
        assert load_catalog(path).clips[0].caption == f"a{line_end}b"


class TestFaults:
    def test_are_all_listed_with_row_and_column(self, tmp_path):
        wrong = {"clip": "no spaces", "video": "../out.mp4", "prompts": [], "start": -1, "colour": "red"}
        text = faults_of(tmp_path, ROW, wrong, ROW | {"end": 1, "start": 2})
        for place in (
            "row 2, column clip",
            "row 2, column video: '../out.mp4' leaves",
            "row 2, column prompts",
            "row 2, column start: -1",
            "row 3, column clip: 'a-1' is also the id of row 1",
            "row 3, column end: end 1.0 is not after start 2.0",
        ):
            assert place in text, text
        assert "6 faults" in text

    @pytest.mark.parametrize("video", ["/etc/passwd", "v/../../x.mp4"])
    def test_paths_stay_inside(self, tmp_path, video):
        (tmp_path / "in").mkdir()
        assert "leaves the catalog's folder" in faults_of(tmp_path / "in", ROW | {"video": video})

    def test_a_link_out_of_the_folder_is_refused(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "secret.mp4").touch()
        (tmp_path / "in" / "a.mp4").symlink_to(tmp_path / "secret.mp4")
        assert "leaves the catalog's folder" in faults_of(tmp_path / "in", ROW | {"video": "a.mp4"})

    def test_a_row_that_is_no_object(self, tmp_path):
        assert "row 1, column all: is 3" in faults_of(tmp_path, 3)

    def test_prompts_that_are_no_list(self, tmp_path):
        assert "row 1, column prompts: 'a star'" in faults_of(tmp_path, ROW | {"prompts": "a star"})

    def test_a_cell_that_is_no_number(self, tmp_path):
        with pytest.raises(CatalogError, match="row 1, column start: 'soon'"):
            load_catalog(write(tmp_path, [ROW | {"start": "soon"}], "csv"))

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("c.txt", b"", "is no .csv, .jsonl or .parquet"),
            ("c.csv", b"clip,video,caption,prompts\na,b,c,d,e\n", "line 2 has more cells"),
            ("c.csv", b"Clip,video,caption,prompts\n" + 99 * b"a,b,c,d\n", "heading lacks clip and has Clip; [^\n]*$"),
            (
                "c.csv",
                b"clip:video:caption:prompts\na:b:c:d\n",
                "heading lacks .*, parted by commas, semicolons or tabs",
            ),
            ("c.csv", b"clip,video,caption,prompts,prompts\na,b,c,d,e\n", "heading has prompts more than once"),
            ("c.csv", b"clip,video,prompts,Seed\na,b,c,1\n", "heading has Seed; expected .* in small letters"),
            ("c.csv", b"sep=ab\nclip,video,prompts\na,b,c\n", "names no separator of one character"),
            ("c.csv", b"clip,video,prompts\na,b,caf\xe9\n", r"is not UTF-8 text \(byte 26\); save it as UTF-8"),
            ("c.csv", b"\xff\xfe\x00", "is damaged"),
            ("c.jsonl", b'{"clip": ', "line 1"),
            ("c.parquet", b"PAR1 no", "is damaged"),
            ("c.csv", b"clip,video,caption,prompts\n", "has no clips"),
        ],
    )
    def test_of_the_file(self, tmp_path, name, content, told):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CatalogError, match=told):
            load_catalog(tmp_path / name)

    def test_an_absent_file(self, tmp_path):
        with pytest.raises(CatalogError, match="cannot be read"):
            load_catalog(tmp_path / "c.csv")


def test_only_takes_the_named_clips(tmp_path):
    catalog = load_catalog(write(tmp_path, [ROW, FULL], "jsonl"))
    assert [clip.clip for clip in catalog.only(("b_2",)).clips] == ["b_2"]
    assert catalog.only(()) == catalog and isinstance(catalog, Catalog)
    with pytest.raises(CatalogError, match="no such clip"):
        catalog.only(("c",))

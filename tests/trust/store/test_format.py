"""A store can be read by the page docs/store.md alone: this reader uses nothing of the package."""

import hashlib
import json
from pathlib import Path

from harm import Made
from safetensors import safe_open

COMPONENTS = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")


def digest(value: object) -> str:
    """SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_of_folder(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return digest({path.relative_to(folder).as_posix(): digest_of_file(path) for path in files})


def test_every_artifact(made: Made, backbone_folder: Path) -> None:
    store = made.folder / "store"
    records = {path: json.loads(path.read_text(encoding="ascii")) for path in store.glob("*/*/artifact.json")}
    stages = [record["key"]["stage"] for record in records.values()]
    assert sorted(set(stages)) == ["evaluate", "heads", "ingest", "render", "spatial", "temporal", "text"]
    read = set()
    for path, record in records.items():
        assert record.pop("checksum") == digest(record)
        assert path.parent == store / record["key"]["stage"] / digest(record["key"])
        found = {p.relative_to(path.parent).as_posix(): p for p in path.parent.rglob("*") if p.is_file() and p != path}
        files = {name: {"sha256": digest_of_file(file), "size": file.stat().st_size} for name, file in found.items()}
        assert files == record["files"]
        read |= {file["sha256"] for file in files.values()}
        assert record["key"]["backbone"] == digest([digest_of_folder(backbone_folder / name) for name in COMPONENTS])
        if record["key"]["stage"] in ("ingest", "text"):
            for name in (name for name in files if name.endswith(".safetensors")):
                with safe_open(found[name], framework="np") as file:
                    assert list(file.keys()) == [name.removesuffix(".safetensors")]
    later = {"heads", "spatial", "temporal"}
    inputs = {d for r in records.values() if r["key"]["stage"] in later for d in r["key"]["inputs"].values()}
    assert inputs <= read  # every input is a file of another artifact
    memo = json.loads((store / "backbones.json").read_text())
    assert memo["checksum"] == digest(memo["digests"])
    files = [file for name in COMPONENTS for file in (backbone_folder / name).rglob("*") if file.is_file()]
    assert set(memo["digests"].values()) <= {digest_of_file(file) for file in files}
    assert len(memo["digests"]) == len(files)

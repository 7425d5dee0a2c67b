"""The facts of an adapter folder and the digests that vouch for its files, read without torch."""

import json
from pathlib import Path

from effivmt.errors import AdapterError
from effivmt.store.digests import sha256_file


def read_facts(folder: Path) -> dict[str, object]:
    """adapter.json of an adapter folder, after checking the digest of every file it lists (AdapterError otherwise)."""
    try:
        facts = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(f"{folder} is no adapter folder: adapter.json is missing or unreadable") from error
    except ValueError as error:
        raise AdapterError(f"adapter {folder}: adapter.json is damaged; pull or make the adapter again") from error
    if not isinstance(facts, dict) or facts.get("format") != "effivmt-adapter" or facts.get("version") != 1:
        raise AdapterError(f"{folder} is no adapter of a format this version reads (effivmt-adapter, version 1)")
    files = facts.get("files")
    if not isinstance(files, dict) or not {"spatial.safetensors", "temporal.safetensors", "heads.parquet"} <= set(
        files
    ):
        raise AdapterError(f"adapter {folder}: adapter.json does not list the adapter's files; pull or make it again")
    for name, digest in files.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise AdapterError(f"adapter {folder}: {name} is missing; pull or make the adapter again")
        if sha256_file(path) != digest:
            raise AdapterError(
                f"adapter {folder}: {name} is damaged (its sha256 differs from adapter.json); pull or make it again"
            )
    return facts

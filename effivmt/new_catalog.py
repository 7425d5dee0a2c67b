"""Writes a catalog from a folder of videos: a row for each, whose id comes from where the video lies."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from effivmt.catalog import clip_id, id_digest
from effivmt.catalog_files import SEPARATOR
from effivmt.errors import EffiVMTError, ParamsError

VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".ts", ".webm")
COLUMNS = ("clip", "video", "caption", "prompts")


def write_new_catalog(catalog: Path, folder: Path, prompts: Sequence[str]) -> int:
    """Writes a .csv or .jsonl catalog of all videos in a folder and the folders in it; returns how many there are.

    Every row has these prompts and no caption. Ids depend on the videos' names and on no other video, unless two would
    be the same. ParamsError where the catalog is there already, or the folder has no videos or is not beside it.
    """
    if catalog.suffix.lower() not in (".csv", ".jsonl"):
        raise ParamsError(f"CATALOG {catalog} is no .csv or .jsonl file name; give one")
    if catalog.exists() or catalog.is_symlink():
        raise ParamsError(f"CATALOG {catalog} exists already; give another name, or delete it")
    if not folder.is_dir():
        raise ParamsError(f"FOLDER {folder} is no folder; give the folder of the videos")
    if not catalog.parent.is_dir():
        raise ParamsError(f"CATALOG {catalog} lies in no folder; make {catalog.parent} first")
    root, top = catalog.parent.resolve(), folder.resolve()
    if not top.is_relative_to(root):
        raise ParamsError(
            f"FOLDER {folder} is not in the folder of the catalog, {root}, where all videos of a catalog must be; "
            f"write the catalog to {top.parent / catalog.name}"
        )
    if catalog.suffix.lower() == ".csv" and (barred := [prompt for prompt in prompts if "|" in prompt]):
        raise ParamsError(f"--prompt {barred[0]!r:.60} has a |, which parts prompts in CSV; write a .jsonl catalog")
    videos = sorted(path for path in top.rglob("*") if _is_video(path, top) and path.resolve().is_relative_to(root))
    if not videos:
        raise ParamsError(f"FOLDER {folder} has no video ({', '.join(VIDEOS)})")
    ids = _ids([path.relative_to(top) for path in videos])
    rows = [
        (name, path.relative_to(root).as_posix(), "", list(prompts)) for name, path in zip(ids, videos, strict=True)
    ]
    try:
        _write(catalog, rows)
    except OSError as error:
        raise EffiVMTError(f"CATALOG {catalog} cannot be written ({error.strerror}); choose another folder") from error
    return len(rows)


def _write(catalog: Path, rows: Sequence[tuple[str, str, str, list[str]]]) -> None:
    with catalog.open("x", encoding="utf-8", newline="") as file:
        if catalog.suffix.lower() == ".csv":
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows([*row[:-1], SEPARATOR.join(row[-1])] for row in rows)
        else:
            file.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)


def _is_video(path: Path, top: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(top).parts)
    return path.suffix.lower() in VIDEOS and path.is_file() and not hidden


def _ids(paths: Sequence[Path]) -> list[str]:
    """An id for each path, from its folders and its name; those that would be the same have a digest of the path."""
    names = [clip_id("-".join(path.with_suffix("").parts)) for path in paths]
    return [
        f"{name}-{id_digest(path.as_posix())}" if names.count(name) > 1 else name
        for name, path in zip(names, paths, strict=True)
    ]

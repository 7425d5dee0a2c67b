"""The table catalog.parquet: a row per clip, with the catalog's columns and the facts of its video file."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from effivmt.catalog import Catalog, Clip
from effivmt.errors import VideoError
from effivmt.store.digests import canonical_json, sha256_bytes, sha256_file
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write
from effivmt.untrusted import open_regular

NAME = "catalog.parquet"
SCHEMA = pa.schema(
    [
        ("clip", pa.string()),
        ("video", pa.string()),
        ("caption", pa.string()),
        ("prompts", pa.list_(pa.string())),
        ("class", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("appearance_images", pa.string()),
        ("seed", pa.int64()),
        ("motion_of", pa.string()),
        ("region", pa.list_(pa.float64())),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("fps", pa.float64()),
        ("duration", pa.float64()),
        ("num_frames", pa.int64()),
        ("rotation", pa.int64()),
        ("codec", pa.string()),
        ("fault", pa.string()),
    ]
)
"""A catalog's own columns, then the file's digest and probe facts; `fault` says why they are missing."""
IMAGES = pa.field("images", pa.list_(pa.string()))
"""The last column of a catalog that has images."""


def write_catalog_table(catalog: Catalog, out: Path) -> Path:
    """Writes `out`/catalog.parquet unless it is up to date; paths are relative to the folder of the catalog file."""
    root = catalog.path.resolve().parent
    path, signature = out / NAME, {b"signature": _signature(catalog).encode()}
    with write_errors(path):
        if _signature_in(path) == signature[b"signature"]:
            return path
        out.mkdir(parents=True, exist_ok=True)
        rows = [_row(clip, root) for clip in catalog.clips]
        with atomic_write(path) as temporary:
            schema = SCHEMA.append(IMAGES) if any(clip.images for clip in catalog.clips) else SCHEMA
            parquet.write_table(pa.Table.from_pylist(rows, schema.with_metadata(signature)), temporary)
    return path


def _signature_in(path: Path) -> bytes | None:
    """The signature in a table that an earlier run wrote; None where there is no whole one."""
    try:
        with open_regular(path) as file:
            return (parquet.read_schema(file).metadata or {}).get(b"signature")
    except (OSError, ValueError, pa.ArrowException):
        return None


def _signature(catalog: Catalog) -> str:
    """Digest of the rows and of the files' sizes and modification times: while it is the same, no file is read."""
    stamps = []
    for clip in catalog.clips:
        stat = clip.video.stat() if clip.video.exists() else None
        stamps.append([clip.model_dump(mode="json"), *((stat.st_size, stat.st_mtime_ns) if stat else ())])
    return sha256_bytes(canonical_json(stamps))


def _row(clip: Clip, root: Path) -> dict[str, object]:
    from effivmt.media.video import probe  # slow to import, and not needed where nothing changed

    row = clip.model_dump(mode="json", by_alias=True) | {"motion_of": clip.motion_of, "region": clip.region}
    for name in ("video", "appearance_images"):
        if row[name] is not None:
            row[name] = Path(row[name]).relative_to(root).as_posix()
    row["images"] = [image.relative_to(root).as_posix() for image in clip.images]
    try:
        info = probe(clip.video)
        row |= {name: getattr(info, name) for name in ("width", "height", "fps", "duration", "num_frames")}
        row |= {"rotation": info.rotation, "codec": info.codec}
        row |= {"sha256": sha256_file(clip.video), "bytes": clip.video.stat().st_size}
    except (VideoError, OSError) as error:
        row["fault"] = " ".join(str(error).split())
    return row

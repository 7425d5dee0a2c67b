"""What the folder of a catalog run records of its clips; read without the libraries that draw its page.

The typed dicts are the JSON documents of that folder as the pipeline writes them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from effivmt.errors import EffiVMTError
from effivmt.evaluation.metrics import MetricRow
from effivmt.store.digests import canonical_json, sha256_bytes
from effivmt.versions import __version__


class RunRow(TypedDict):
    """A clip in the run.json of a catalog run; `stage` and `reason` are empty unless it failed."""

    clip: str
    status: str
    seconds: float
    stage: str
    reason: str


class StageTiming(TypedDict):
    """Seconds that a stage took when it ran; `cached` where its artifact came from the store."""

    seconds: float
    cached: bool


class BackboneIdentity(TypedDict):
    """A backbone's hub id or folder name, the digest of its weights and configs, and what `BackboneFacts` has more."""

    id: str
    digest: str
    transformer: NotRequired[str]
    transformer_2: NotRequired[str]
    commit: NotRequired[str]


class VideoIdentity(TypedDict):
    """A reference video's file name and SHA-256, and the `Excerpt` that was taken of it (none up to version 0.1)."""

    name: str
    sha256: str
    excerpt: NotRequired[dict[str, float]]


CatalogRow = TypedDict(
    "CatalogRow",
    {
        "clip": str,
        "caption": str,
        "prompts": Sequence[str],
        "group": str | None,
        "class": str | None,
        "motion_of": str,
        "region": Sequence[float] | None,
    },
    total=False,
)
"""A row of a catalog; the class of the clip is `class` in a catalog's file and `group` in a clip's transfer.json."""


Labels = tuple[str, str]
"""What a page calls the videos, and those that they are compared with."""


def labels_of(title: str | None, *, adapted: bool) -> Labels:
    """The labels of videos that were rendered with an adapter or, without one, by a method of this title."""
    return ("With adapter", "Without adapter") if adapted or title is None else (title, "Backbone alone")


class MethodRow(TypedDict):
    """The method that made the results, where it is not EffiVMT: its name, title and own params."""

    name: str
    title: str
    params: Mapping[str, object]


class ClipRun(TypedDict):
    """transfer.json of an out folder. `made_of`: digest of all that its content depends on; `files`: sizes in bytes.

    `params` are the run's, as plain JSON values.
    """

    made_of: str
    clip: CatalogRow
    video: VideoIdentity
    backbone: BackboneIdentity
    params: Mapping[str, object]
    stages: Mapping[str, StageTiming]
    versions: Mapping[str, str]
    files: Mapping[str, int]
    method: NotRequired[MethodRow]


class ResultRow(MetricRow):
    """A rendered video in metrics.json of a clip's out folder: file names of the video with and without adapter, and of
    the image that they begin with."""

    video: str
    without_adapter: NotRequired[str]
    image: NotRequired[str]


class ClipMetrics(TypedDict):
    """metrics.json of a clip's out folder; notices: what has to be told of the results (none up to version 0.1)."""

    clip: str
    caption: str
    notices: NotRequired[Sequence[str]]
    results: Sequence[ResultRow]


def named_curves(losses: Mapping[str, Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """The curves of losses.json as a page names them, such as `temporal motion` or `temporal motion high noise`."""
    return {f"{stage} {name.replace('_', ' ')}": curve for stage, it in losses.items() for name, curve in it.items()}


@dataclass(frozen=True)
class ClipRecord:
    """A clip of a run: its row in the catalog, its outcome, and the transfer.json of its out folder.

    status: `hit`, `done` or `failed` (at `stage`, for `reason`). made: the folder's transfer.json; None for a clip that
    failed, and where the folder has none.
    """

    clip: str
    status: str
    seconds: float
    stage: str
    reason: str
    group: str | None
    caption: str
    prompts: tuple[str, ...]
    made: ClipRun | None


@dataclass(frozen=True)
class RunRecord:
    """A catalog run: the catalog's file name, end time (UTC), seconds, counts by status, and the clips in order."""

    catalog: str
    ended: str
    seconds: float
    counts: Mapping[str, int]
    clips: tuple[ClipRecord, ...]

    @property
    def digest(self) -> str:
        """Digest of everything but times; it stays when a later run finds every result in the store."""
        clips = []
        for it in self.clips:
            words = [it.clip, it.group, it.caption, it.prompts]
            clips.append([*words, it.status == "failed", it.stage, it.reason, it.made and it.made["made_of"]])
        return sha256_bytes(canonical_json([__version__, self.catalog, clips]))


def read_run(out: Path) -> RunRecord:
    """Reads run.json, catalog.parquet and the clips' transfer.json; EffiVMTError where `out` holds no run."""
    try:
        document = json.loads((out / "run.json").read_text(encoding="utf-8"))
        asked = _asked(out / "catalog.parquet")
        clips = tuple(_clip(out, row, asked.get(row["clip"], {})) for row in document["clips"])
        counts = {status: int(document[status]) for status in ("done", "hit", "failed")}
        return RunRecord(document["catalog"], document["ended"], float(document["seconds"]), counts, clips)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EffiVMTError(f"{out} holds no whole run ({error!r:.200}); run the catalog again") from error


def _asked(path: Path) -> dict[str, CatalogRow]:
    """Rows of the normalised catalog by clip; empty where the file is absent."""
    from pyarrow import parquet

    if not path.is_file():
        return {}
    columns = ["clip", "caption", "prompts", "class"]
    with parquet.ParquetFile(path) as file:  # read_table imports pandas
        return {row["clip"]: row for row in file.read(columns).to_pylist()}


def _clip(out: Path, row: RunRow, asked: CatalogRow) -> ClipRecord:
    """The record of a clip; what its folder's transfer.json says takes precedence over the catalog.

    The catalog may have changed for a clip that this run left out.
    """
    made = _made(out / row["clip"] / "transfer.json") if row["status"] != "failed" else None
    shown = made["clip"] if made else asked
    return ClipRecord(
        clip=row["clip"],
        status=row["status"],
        seconds=float(row["seconds"]),
        stage=row["stage"],
        reason=row["reason"],
        group=shown.get("group") or shown.get("class"),
        caption=shown.get("caption") or "",
        prompts=tuple(shown.get("prompts") or ()),
        made=made,
    )


def _made(path: Path) -> ClipRun | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(document, dict) and isinstance(document.get("clip"), dict) and "made_of" in document
    return cast(ClipRun, document) if whole else None

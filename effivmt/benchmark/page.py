"""index.html of a comparison: the reference and all methods side by side, clip by clip, and the tables above them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effivmt.benchmark.markdown import HEADINGS, cell, claim_evidence
from effivmt.benchmark.measures import COSTS, MEASURES
from effivmt.benchmark.results import MethodSummary, Summary
from effivmt.benchmark.statistics import as_estimate
from effivmt.report.inline_media import InlineFile, InlineFiles, inline_image
from effivmt.report.run_page import LIMIT
from effivmt.report.templating import described, template

TABLE_MEASURES = (
    "motion_fidelity",
    "two_sided_motion_fidelity",
    "foreground_motion_fidelity",
    "trajectory_error",
    "text_similarity",
    "appearance_leakage",
    "reference_resemblance",
    "background_leakage",
    "temporal_consistency",
    "seconds",
    "processor_seconds",
)
TILE_METRICS = ("motion_fidelity", "trajectory_error", "text_similarity")
"""Metrics shown under each video."""


@dataclass(frozen=True)
class Tile:
    """One method's video of a prompt; None where there is none, for the `reason`, or where its row alone was kept."""

    method: str
    kind: str
    title: str
    seed: int
    video: Path | None
    reason: str
    metrics: Mapping[str, float | None]

    @property
    def notes(self) -> list[tuple[str, float | None]]:
        """Label and value of each metric shown under the video."""
        return [(MEASURES[name].label, self.metrics[name]) for name in TILE_METRICS if name in self.metrics]


@dataclass(frozen=True)
class ClipTiles:
    """A clip: its reference video, None where it could not be read, and the tiles of each prompt."""

    clip: str
    group: str | None
    caption: str
    reference: Path | None
    prompts: Mapping[str, Sequence[Tile]]

    @property
    def videos(self) -> list[Path]:
        """All its videos, the reference first."""
        tiles = [tile for tiles in self.prompts.values() for tile in tiles]
        return [path for path in (self.reference, *(tile.video for tile in tiles)) if path is not None]


def render_page(summary: Summary, clips: Sequence[ClipTiles], picture: Path, root: Path) -> str:
    """The page as HTML; the same files give the same text.

    It loads nothing from elsewhere and escapes every text. Above the size limit it links to the videos, relative to
    `root`, the page's folder, instead of embedding them. Raises VideoError for a video that is missing or that no
    browser plays.
    """
    methods = summary["methods"]
    kinds = [kind for kind in HEADINGS if any(method["kind"] == kind for method in methods.values())]
    measured = {name for method in methods.values() for name in method["estimates"]}
    measures = [name for name in TABLE_MEASURES if name in measured]
    return template("bench.html.j2").render(
        summary=summary,
        clips=clips,
        kinds={kind: HEADINGS[kind] for kind in kinds},
        groups=list(dict.fromkeys(clip.group for clip in clips if clip.group)),
        refusals=[refusal for method in methods.values() for refusal in method.get("cannot", [])],
        files=_collect(clips),
        limit=LIMIT // 2**20,
        picture=inline_image(picture),
        measures={name: MEASURES[name] for name in measures},
        meanings=described(measured - COSTS.keys()) | {name: cost for name, cost in COSTS.items() if name in measured},
        table=_table(methods, measures),
        claims=[
            (claim["claim"], claim["verdict"], claim_evidence(claim).replace("**", "")) for claim in summary["claims"]
        ],
        relative=lambda path: path.relative_to(root).as_posix(),
    )


def _table(methods: Mapping[str, MethodSummary], measures: Sequence[str]) -> list[tuple[MethodSummary, list[str]]]:
    """Each method with its values as text."""
    return [
        (method, [cell(name, as_estimate(method["estimates"].get(name))) for name in measures])
        for method in methods.values()
    ]


def _collect(clips: Sequence[ClipTiles]) -> dict[Path, InlineFile] | None:
    inline = InlineFiles()
    for clip in clips:
        for path in clip.videos:
            inline.add(path)
            if inline.size > LIMIT:
                return None
    return inline.files

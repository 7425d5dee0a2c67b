"""The report of one clip: a single HTML file that holds its videos, figures and numbers and needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from effivmt.report.charts import Chart, loss_chart
from effivmt.report.inline_media import inline_image, inline_video
from effivmt.report.run_record import Labels
from effivmt.report.templating import described, template


@dataclass(frozen=True)
class Result:
    """One rendered video with its prompt, seed and metrics (None: not defined), and the same without the adapter.

    image: the PNG that both begin with, where one was given.
    """

    prompt: str
    seed: int
    video: Path
    metrics: Mapping[str, float | None]
    without_adapter: Path | None = None
    metrics_without_adapter: Mapping[str, float | None] = field(default_factory=dict)
    image: Path | None = None


@dataclass(frozen=True)
class Timing:
    """Seconds that a stage took when it ran; `cached` where this run took its artifact from the store."""

    seconds: float
    cached: bool


@dataclass(frozen=True)
class Report:
    """What the page of one clip shows; videos are H.264, VP8, VP9 or AV1 in .mp4 or .webm, `head_map` is a PNG.

    `excerpt`: what was taken of the reference video. `notices`: what has to be told of the results. `losses`: stage ->
    loss of each step. `timings`: stage -> Timing. `params`: nested, of plain YAML values.
    `mask`: a video of the wanted part of the reference, which is `motion_of` `all` (in a region), `camera` or `object`;
    None: the whole reference. `previews`: label -> video, of a run that still goes on.
    `method`: the title of the one that made the results, empty for EffiVMT; `labels`: what the videos are called, and
    those that they are compared with.
    """

    clip: str
    caption: str
    reference: Path
    backbone_id: str
    backbone_digest: str
    excerpt: str = ""
    notices: Sequence[str] = ()
    results: Sequence[Result] = ()
    previews: Mapping[str, Path] = field(default_factory=dict)
    head_map: Path | None = None
    mask: Path | None = None
    motion_of: str = "all"
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    timings: Mapping[str, Timing] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    method: str = ""
    labels: Labels = ("With adapter", "Without adapter")


def render_report(data: Report) -> str:
    """Renders the HTML page of one clip, the same text for the same data.

    Videos and images are embedded byte for byte as base64 data URIs; every text is escaped, and the page's content
    security policy lets a browser load nothing else. Raises VideoError for a video or image that is missing or that no
    browser shows.
    """
    return template("report.html.j2").render(
        data=data,
        reference=inline_video(data.reference),
        results=[
            (
                it,
                inline_video(it.video),
                it.without_adapter and inline_video(it.without_adapter),
                it.image and inline_image(it.image),
            )
            for it in data.results
        ],
        previews={label: inline_video(video) for label, video in data.previews.items()},
        metrics=described({name for it in data.results for name in (*it.metrics, *it.metrics_without_adapter)}),
        mask=data.mask and inline_video(data.mask),
        head_map=data.head_map and inline_image(data.head_map),
        charts=charts(data),
        params=params_text(data),
    )


def charts(data: Report) -> list[Chart]:
    """The loss curves of a clip."""
    return [loss_chart(stage, losses) for stage, losses in data.losses.items() if len(losses)]


def params_text(data: Report) -> str:
    """The params of a clip as YAML; empty where there are none."""
    return yaml.safe_dump(dict(data.params), sort_keys=False, allow_unicode=True, width=88) if data.params else ""

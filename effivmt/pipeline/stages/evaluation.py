"""Stage evaluate: measures every rendered video against the reference and its prompt."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from effivmt.catalog import Clip
from effivmt.pipeline.reconstruction import FILE as RECONSTRUCTION
from effivmt.pipeline.reconstruction import load_psnr
from effivmt.pipeline.stages.rendering import RenderedVideo
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.digests import canonical_json, sha256_file


def evaluate_key(work: Workspace, clip: Clip, ingested: Artifact, rendered: Sequence[RenderedVideo]) -> Key:
    """The store key."""
    scorer, tracker = work.scorer.folder, work.params.evaluate.tracker
    videos = {
        f"video_{i}_{kind}": artifact.digest("video.mp4")
        for i, video in enumerate(rendered)
        for kind, artifact in video.by_kind.items()
    }
    inputs = {
        "clip": ingested.digest("frames.safetensors"),
        "reconstruction": ingested.digest(RECONSTRUCTION),
        **videos,
        "scorer": "none" if scorer is None else scorer.digest,
    }
    if tracker is not None:
        inputs["tracker"] = sha256_file(tracker) if tracker.is_file() else "none"
    prompts = [[video.prompt, video.seed] for video in rendered]
    return work.key("evaluate", inputs, {"prompts": prompts, "caption": clip.caption})


def evaluate(work: Workspace, clip: Clip, ingested: Artifact, rendered: Sequence[RenderedVideo]) -> Artifact:
    """Metrics of every rendered video, with the adapter and without; files: metrics.json.

    metrics.json is a list with an object per video: prompt, seed, and the metrics `adapter` and, where it was rendered
    without the adapter too, `baseline`. Both also tell how well the autoencoder gives the clip itself back. A metric
    that could not be measured is null; without a scorer that fits (`Workspace.scorer`) those of CLIP are left out.
    ingested: the artifact of `ingest` or, where a part of the clip's motion is wanted, that of `mask`.
    """
    key = evaluate_key(work, clip, ingested, rendered)
    make = partial(_evaluate, work, caption=clip.caption or None, ingested=ingested, rendered=rendered)
    return work.store.build(key, make, force=work.forces(key))


def _evaluate(
    work: Workspace,
    out: Path,
    _scratch: Path,
    *,
    caption: str | None,
    ingested: Artifact,
    rendered: Sequence[RenderedVideo],
) -> None:
    from effivmt.evaluation.measure import load_metric_models, measure
    from effivmt.media.video import read_frames

    work.backbone.keep("transformer", "transformer_2", "vae")
    params, progress = work.params.evaluate, work.progress("evaluate")
    reference = load_tensor(ingested, "frames").numpy()
    kept: dict[str, float | None] = {"reconstruction_psnr": load_psnr(ingested)}
    scorer = work.scorer.folder
    models = load_metric_models(None if scorer is None else scorer.path, params.tracker)
    known = None if models.scorer is None else models.scorer.frame_features(reference)
    rows = []
    for video in rendered:
        measured = {}
        for kind, artifact in video.by_kind.items():
            with artifact.opened("video.mp4") as path:
                frames = read_frames(path)[0]
            metrics = measure(reference, frames, video.prompt, models, caption=caption, reference_features=known)
            measured[kind] = metrics | kept
        rows.append({"prompt": video.prompt, "seed": video.seed, **measured})
        progress(len(rows), len(rendered))
    (out / "metrics.json").write_bytes(canonical_json(rows))

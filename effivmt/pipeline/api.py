"""What `import effivmt` offers beside the stages: a whole transfer, and the metrics of any two videos."""

from pathlib import Path

from effivmt.catalog import Clip, check_text
from effivmt.config import EvaluateParams
from effivmt.errors import VideoError
from effivmt.pipeline.healing import heal
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.previews import with_previews
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.transfer import TransferMethod, TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.pipeline.write_outputs import write_outputs

EVALUATE_BYTES = 96 * 2**20
"""`evaluate_videos` holds at most this much of each video: 81 frames of 480 x 832 pixels, not scaled."""


def transfer(
    work: Workspace,
    clip: Clip,
    out: Path | str,
    runner: StageRunner | None = None,
    *,
    method: TransferMethod = run_clip,
) -> tuple[TransferResult, Outputs]:
    """Takes one clip through all stages and writes its out folder `out/<clip>/`.

    Returns the artifacts with their metrics and losses, and the paths of the files. Raises the EffiVMTError of the
    first stage that fails. runner: how the stages are called; by default directly. method: by default EffiVMT.
    """
    runner = runner or StageRunner(work.callback)
    for trial in heal(work.callback):
        with trial:
            result = method(with_previews(work, clip, Path(out)), clip, runner)
            outputs = write_outputs(work, result, Path(out))
    return result, outputs


def evaluate_videos(
    reference: Path | str,
    generated: Path | str,
    prompt: str,
    *,
    caption: str | None = None,
    params: EvaluateParams | None = None,
) -> dict[str, float | None]:
    """The metrics of a generated video file against a reference file and its prompt, by name; None: not measurable.

    caption: what the reference shows, for the appearance leakage. Frames are scaled down where a video's would take
    more than `EVALUATE_BYTES`. VideoError for a file that cannot be read or measured; BackboneError for a scorer that
    cannot be used; ParamsError for a text that is too long.
    """
    from effivmt.media.video import probe, read_frames

    for text in (prompt, caption or ""):
        check_text(text)
    for path in (reference, generated):
        info = probe(Path(path))
        sides = sorted((info.width, info.height))
        if sides[0] < 16 or sides[1] > 3 * sides[0]:
            raise VideoError(
                f"{str(path)!r} has {info.width}x{info.height} pixels; metrics need sides of 16 or more, one at most 3 "
                "times the other: crop it first"
            )
    # Decoding can take half a gigabyte, and so can torch: the frames come first.
    frames = [read_frames(Path(path), max_bytes=EVALUATE_BYTES)[0] for path in (reference, generated)]
    from effivmt.evaluation.measure import load_metric_models, measure
    from effivmt.evaluation.scorer_folder import find_scorer
    from effivmt.method.verbosity import silence_libraries

    silence_libraries()
    params = params or EvaluateParams()
    models = load_metric_models(find_scorer(params.scorer).path, params.tracker)
    return measure(frames[0], frames[1], prompt, models, caption=caption)

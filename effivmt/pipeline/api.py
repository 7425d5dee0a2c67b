"""What `import effivmt` offers beside the stages: a whole transfer, and the metrics of any two videos."""

from pathlib import Path

from effivmt.catalog import Clip
from effivmt.config import EvaluateParams
from effivmt.pipeline.healing import heal
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.transfer import TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.pipeline.write_outputs import write_outputs


def transfer(
    work: Workspace, clip: Clip, out: Path | str, runner: StageRunner | None = None
) -> tuple[TransferResult, Outputs]:
    """Takes one clip through all stages and writes its out folder `out/<clip>/`.

    Returns the artifacts with their metrics and losses, and the paths of the files. Raises the EffiVMTError of the
    first stage that fails. runner: how the stages are called; by default directly.
    """
    runner = runner or StageRunner(work.callback)
    for trial in heal(work.callback):
        with trial:
            result = run_clip(work, clip, runner)
            outputs = write_outputs(work, result, Path(out))
    return result, outputs


def evaluate_videos(
    reference: Path | str,
    generated: Path | str,
    prompt: str,
    *,
    caption: str | None = None,
    params: EvaluateParams | None = None,
) -> dict[str, float]:
    """The metrics of a generated video file against a reference file and its prompt, by name.

    caption: what the reference shows, for the appearance leakage. VideoError for a file that cannot be read;
    BackboneError for a scorer that cannot be used.
    """
    from effivmt.evaluation.measure import load_metric_models, measure
    from effivmt.media.video import read_frames
    from effivmt.method.verbosity import silence_libraries

    silence_libraries()
    params = params or EvaluateParams()
    frames = [read_frames(Path(path))[0] for path in (reference, generated)]
    models = load_metric_models(params.scorer_folder, params.tracker)
    return measure(frames[0], frames[1], prompt, models, caption=caption)

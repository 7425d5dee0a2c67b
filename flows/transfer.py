"""The Prefect flow of one clip: a task a stage, the out folder, and a record in MLflow."""

import sys
from pathlib import Path

from prefect import flow

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.pipeline.outputs import Outputs, write_outputs
from effivmt.pipeline.transfer import UNWATCHED, Transferred, Watch, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store
from effivmt_tasks.stages import call_task
from effivmt_tasks.tracking.location import tracking_uri
from effivmt_tasks.tracking.recorder import Recorder


@flow(name="transfer", flow_run_name="{clip.clip}", persist_result=False, validate_parameters=False)
def transfer(
    clip: Clip, params: Params, store: Path, out: Path, force: tuple[str, ...] = (), watch: Watch | None = None
) -> tuple[Transferred, Outputs]:
    """Takes one clip through all stages and writes `out/<clip>/`; whatever is new goes to MLflow, too.

    Raises the EffiVMTError of the stage that fails. Where MLflow cannot record the clip, one line on stderr says so.
    """
    watch = watch or UNWATCHED
    work = Workspace(Store(store), params, watch.advanced, frozenset(force))
    result = run_clip(work, clip, call=call_task, watch=watch)
    outputs = write_outputs(work, result, out)
    recorder = Recorder(tracking_uri(), out)
    recorder.record(outputs.folder)
    if recorder.message:
        print(recorder.message, file=sys.stderr)
    return result, outputs

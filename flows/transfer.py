"""The Prefect flow of one clip: a task per stage, the out folder, and a run in MLflow."""

import sys
from pathlib import Path

from prefect import flow

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import printable
from effivmt.pipeline import api
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.transfer import TransferResult
from effivmt.pipeline.workspace import Workspace
from effivmt_tasks.stages import call_as_task
from effivmt_tasks.stores import open_store
from effivmt_tasks.tracking.location import tracking_uri
from effivmt_tasks.tracking.recorder import Recorder


@flow(name="transfer", flow_run_name="{clip.clip}", persist_result=False, validate_parameters=False)
def transfer(
    clip: Clip,
    params: Params,
    store: Path,
    out: Path,
    *,
    force: tuple[str, ...] = (),
    callback: Callback | None = None,
) -> tuple[TransferResult, Outputs]:
    """Takes one clip through all stages, writes `out/<clip>/`, and records what is new in MLflow.

    Raises the EffiVMTError of the stage that fails. Where MLflow cannot record the clip, one line on stderr says so.
    """
    work = Workspace(open_store(store), params, callback or Callback(), frozenset(force))
    result, outputs = api.transfer(work, clip, out, StageRunner(work.callback, call_as_task))
    recorder = Recorder(tracking_uri(), out)
    recorder.record(outputs.folder)
    if recorder.message:
        print(printable(recorder.message), file=sys.stderr)
    return result, outputs

"""The Prefect flow of one clip: a task per stage, the out folder, and a run in MLflow."""

from pathlib import Path
from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import EffiVMTError, in_one_line
from effivmt.pipeline import api
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.transfer import TransferMethod, TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt_flows.recording import record_clip
from effivmt_tasks.stages import calls_for
from effivmt_tasks.stores import open_store


def transfer(
    clip: Clip,
    params: Params,
    store: Path,
    out: Path,
    *,
    force: tuple[str, ...] = (),
    callback: Callback | None = None,
    method: TransferMethod = run_clip,
) -> tuple[TransferResult, Outputs]:
    """Takes one clip through all stages in a flow, writes `out/<clip>/`, and records what is new in MLflow.

    Raises the EffiVMTError of the stage that fails. Where MLflow cannot record the clip, one line on stderr says so.
    """
    state = _transfer(clip, params, store, out, force=force, callback=callback, method=method, return_state=True)
    return cast("tuple[TransferResult, Outputs]", state.result())


@flow(name="transfer", flow_run_name="{clip.clip}", persist_result=False, validate_parameters=False)
def _transfer(
    clip: Clip,
    params: Params,
    store: Path,
    out: Path,
    *,
    force: tuple[str, ...],
    callback: Callback | None,
    method: TransferMethod,
) -> tuple[TransferResult, Outputs] | State:
    """An error that a user can cause is the message of its state, without a traceback in its log."""
    work = Workspace(open_store(store), params, callback or Callback(), frozenset(force))
    try:
        result, outputs = api.transfer(work, clip, out, StageRunner(work.callback, calls_for(clip.clip)), method=method)
    except EffiVMTError as error:
        return Failed(message=in_one_line(error), data=error)
    record_clip(outputs.folder)
    return result, outputs

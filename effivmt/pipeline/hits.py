"""Clips of which the store has everything: found without computing, so that their run needs no engine."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from effivmt.catalog import Catalog, Clip
from effivmt.errors import DamageError
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.outcomes import ClipOutcome
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.transfer import TransferMethod, TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.pipeline.write_outputs import write_outputs
from effivmt.store import Artifact, Key, Store


def find_transfer(
    work: Workspace, clip: Clip, out: Path, *, method: TransferMethod = run_clip
) -> tuple[TransferResult, Outputs] | None:
    """The transfer of a clip that the store has, its out folder up to date; None where anything is to be computed.

    None also where a stage fails: whoever runs it will meet the error and set the clip aside. What is damaged is
    dropped, and told to the callback.
    """
    reading = replace(work, store=_ReadingStore(work.store.root), callback=Callback())
    try:
        result = method(reading, clip, StageRunner(reading.callback))
        return result, write_outputs(reading, result, out)
    except DamageError as damage:
        work.callback.on_damage(damage)
        return None
    except Exception:  # noqa: BLE001  (_NothingFound, or an error that the run of the clip meets again)
        return None


def find_hits(work: Workspace, catalog: Catalog, out: Path, *, method: TransferMethod = run_clip) -> list[ClipOutcome]:
    """The outcomes of the clips that the store has, their out folders up to date; the callback hears of each."""
    hits = []
    for clip in catalog.clips:
        start = time.perf_counter()
        if (found := find_transfer(work, clip, out, method=method)) is None:
            continue
        result = found[0]
        outcome = ClipOutcome(
            clip=clip.clip,
            status="hit",
            seconds=round(time.perf_counter() - start, 3),
            stages={run.stage: round(run.seconds, 3) for run in result.runs},
            hits=tuple(run.stage for run in result.runs),
            taken=result.excerpt.describe() if result.excerpt.short else "",
            notices=result.notices,
        )
        hits.append(outcome)
        work.callback.on_clip_end(outcome)
    return hits


class _NothingFound(Exception):
    """The store does not have what is asked for."""


class _ReadingStore(Store):
    """A store that makes nothing."""

    def build(self, key: Key, make: Callable[[Path, Path], None], *, force: bool = False) -> Artifact:
        """The key's artifact; _NothingFound where it is not there, or is to be made again."""
        if force or (found := self._hit(key)) is None:
            raise _NothingFound
        return found

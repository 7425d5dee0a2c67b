"""Runs the jobs of a comparison, in this process or in several; the store makes it go on where it was stopped."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from effivmt.benchmark.cells import Job, JobResult, failed_cells, run_job
from effivmt.benchmark.finished import FinishedJobs
from effivmt.benchmark.methods import Method
from effivmt.benchmark.peers import PEERS, is_of_peer, peer_module, peer_params, read_peers, section_of
from effivmt.catalog import Catalog, Clip
from effivmt.errors import CatalogError
from effivmt.pipeline.workspace import LoadedBackbone, Workspace
from effivmt.store.store import Store

DIED = "its worker process died (out of memory?); the next run resumes from its last checkpoint"


def plan(
    methods: Sequence[Method],
    clips: Sequence[Clip],
    *,
    params: str | Path | None,
    peers: Path | None,
    overrides: Sequence[str],
) -> list[Job]:
    """A job for each method and clip, one method after the other, so that parallel workers share no clip.

    params: a file or preset; peers: a file; overrides: `section.key=value` of either. ParamsError names a wrong field.
    """
    sections = (*PEERS, *(section_of(method.peer) for method in methods if method.peer))
    of_peers = [override for override in overrides if is_of_peer(override, sections)]
    ours = [override for override in overrides if override not in of_peers]
    tree = read_peers(peers) if peers is not None else {}
    jobs = []
    for method in methods:
        settings = method.params(params, ours)
        peer = peer_params(method.peer, tree, of_peers) if method.peer else None
        jobs += [Job(method, settings, clip, peer) for clip in clips]
    return jobs


def pick(catalog: Catalog, clips: int | None, prompts: int | None) -> list[Clip]:
    """The first `clips` clips, taking one from each class in turn, with their first `prompts` prompts; None: all.

    CatalogError where two images of a clip have the same prompt.
    """
    if twice := [clip for clip in catalog.clips if len(set(clip.prompts)) < len(clip.prompts)]:
        raise CatalogError(
            f"clip {twice[0].clip} has one prompt for several images, but the tables tell its videos apart by their "
            "prompts; give each image another prompt"
        )
    by_class: dict[str | None, list[Clip]] = {}
    for clip in catalog.clips:
        by_class.setdefault(clip.group, []).append(clip)
    longest = max(map(len, by_class.values()))
    turns = [members[turn] for turn in range(longest) for members in by_class.values() if turn < len(members)]
    names = {clip.clip for clip in turns[:clips]}
    chosen = [clip for clip in catalog.clips if clip.clip in names]
    return [
        clip.model_copy(update={"prompts": clip.prompts[:prompts], "images": clip.images[:prompts]}) for clip in chosen
    ]


def run(
    store: Store,
    jobs: Sequence[Job],
    workers: int,
    on_job_end: Callable[[JobResult], None],
    *,
    finished: FinishedJobs | None = None,
) -> list[JobResult]:
    """Runs every job and returns the results in the order of the jobs; calls `on_job_end` with each as it ends.

    One worker is this process, with all its threads; several are processes with one thread each. finished: takes the
    jobs that it has from there, and keeps the others there.
    """
    ended: dict[int, JobResult] = {}
    ends = _here(store, jobs, finished) if workers == 1 else _elsewhere(store, jobs, workers, finished)
    for number, done in ends:
        ended[number] = done
        on_job_end(done)
    return [ended[number] for number in range(len(jobs))]


def _here(store: Store, jobs: Sequence[Job], finished: FinishedJobs | None) -> Iterator[tuple[int, JobResult]]:
    loaded = LoadedBackbone()
    for number, job in enumerate(jobs):
        yield number, _run_one(Workspace(store, job.params, loaded=loaded), job, finished)


def _elsewhere(
    store: Store, jobs: Sequence[Job], workers: int, finished: FinishedJobs | None
) -> Iterator[tuple[int, JobResult]]:
    context, others = multiprocessing.get_context("spawn"), multiprocessing.active_children()
    files = tuple(dict.fromkeys(str(job.method.file) for job in jobs if job.method.file))
    with ProcessPoolExecutor(workers, context, _begin_worker, (files,)) as pool:
        try:
            futures = {pool.submit(_run_in_worker, store, job, finished): number for number, job in enumerate(jobs)}
            for future in as_completed(futures):
                number = futures[future]
                try:
                    yield number, future.result()
                except BrokenProcessPool:
                    lost = failed_cells(jobs[number], jobs[number].clip.prompts, DIED)
                    yield number, JobResult(jobs[number], tuple(lost), None, cached=False)
        except BaseException:  # such as a signal to this process alone: its jobs would go on to their end
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise


_LOADED = LoadedBackbone()
"""The backbone of a worker process."""


def _begin_worker(files: Sequence[str] = ()) -> None:
    """Sets one thread, since sums over more round differently and more threads than cores wait for each other; ends
    the worker with the process that started it, even where that one is killed. Imports the users' files of methods,
    whose params come with the jobs."""
    import cv2
    import torch

    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for file in files:
        peer_module(file)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _run_in_worker(store: Store, job: Job, finished: FinishedJobs | None) -> JobResult:
    return _run_one(Workspace(store, job.params, loaded=_LOADED), job, finished)


def _run_one(work: Workspace, job: Job, finished: FinishedJobs | None) -> JobResult:
    if finished is None:
        return run_job(work, job)
    if (kept := finished.find(work, job)) is not None:
        return kept
    result = run_job(work, job)
    finished.keep(work, result)
    return result

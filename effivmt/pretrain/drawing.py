"""Draws many clips of the procedural world in several processes."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from effivmt.world.scenes import WorldClip

Draw = Callable[[int], WorldClip]
"""Draws clip number i. Other processes take it by name: it is a function of a module or a partial of one."""


@contextmanager
def drawing() -> Iterator[Callable[[Draw, range], list[WorldClip]]]:
    """Yields a function that draws the clips of a range, in order, in as many processes as torch has threads."""
    processes = torch.get_num_threads()
    if processes == 1:
        yield lambda draw, indices: [draw(index) for index in indices]
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield lambda draw, indices: list(pool.map(draw, indices, chunksize=4))

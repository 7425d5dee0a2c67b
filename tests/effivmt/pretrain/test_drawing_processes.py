"""Several processes draw what one does, in its order."""

from functools import partial

import numpy as np
import pytest
import torch

from effivmt.pretrain.drawing import drawing
from effivmt.world.scenes import draw_clip


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
def test_clips_come_in_order_whoever_draws_them(threads, count: int) -> None:
    threads(count)
    draw = partial(draw_clip, 5, kinds={"object": 1.0}, num_frames=2)
    with drawing() as draw_all:
        drawn = draw_all(draw, range(3, 12))
    assert [clip.caption for clip in drawn] == [draw(index).caption for index in range(3, 12)]
    assert all(np.array_equal(clip.frames, draw(index).frames) for index, clip in enumerate(drawn, 3))

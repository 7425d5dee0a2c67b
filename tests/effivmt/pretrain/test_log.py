"""The log of a training loop: figures in steps' order, going on from those of before."""

import torch

from effivmt.pretrain.log import EVERY, Log


def test_figures_are_kept_in_order_and_rounded() -> None:
    log = Log({"loss": [3.0], "frames": [1]}, torch.device("cpu"))
    log.add(loss=torch.tensor(1 / 3), frames=9)
    assert log.newest() == {"loss": 0.333333, "frames": 9}
    log.add(loss=torch.tensor(0.25), frames=3)
    log.add(loss=torch.tensor(0.5), frames=1)
    assert log.read() == {"loss": [3.0, 0.333333, 0.25, 0.5], "frames": [1, 9, 3, 1]} == log.read()


def test_a_gpu_is_read_only_now_and_then() -> None:
    cpu, gpu = (Log({}, torch.device(name)) for name in ("cpu", "cuda"))
    assert all(cpu.due(step) for step in range(1, 2 * EVERY))
    assert [step for step in range(1, 2 * EVERY + 1) if gpu.due(step)] == [EVERY, 2 * EVERY]

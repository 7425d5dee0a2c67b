"""Faults that pass are met by another try; others are raised at once."""

import errno

import pytest

from effivmt.errors import EffiVMTError, VideoError
from effivmt.pipeline import healing
from effivmt.pipeline.callbacks import Callback


class Notices(Callback):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_notice(self, notice: str) -> None:
        self.said.append(notice)


def work(faults: list[Exception], notices: Notices) -> None:
    """Work that meets these faults, one a trial."""
    for trial in healing.heal(notices):
        with trial:
            if faults:
                raise faults.pop(0)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, without the waits."""
    monkeypatch.setattr(healing, "WAITS", (0.0, 0.0, 0.0))


def stale() -> Exception:
    """What a network disk says after its server was restarted, as an error of ours."""
    try:
        raise OSError(errno.ESTALE, "Stale file handle")
    except OSError as error:
        ours = EffiVMTError("out cannot be written")
        ours.__cause__ = error
        return ours


def test_a_network_disk_is_tried_again_three_times() -> None:
    notices = Notices()
    work([stale(), stale(), stale()], notices)
    assert notices.said == ["out cannot be written: trying again in 0 s"] * 3
    with pytest.raises(EffiVMTError, match="out cannot be written"):
        work([stale() for _ in range(4)], notices)


def test_a_gpu_out_of_memory_is_tried_again_once() -> None:
    import torch

    full = torch.OutOfMemoryError("CUDA out of memory")
    notices = Notices()
    work([full], notices)
    assert len(notices.said) == 1
    with pytest.raises(torch.OutOfMemoryError):
        work([full, full], notices)


def test_bad_input_is_not_tried_again() -> None:
    notices, missing = Notices(), VideoError("no such video")
    missing.__cause__ = FileNotFoundError(errno.ENOENT, "No such file")
    with pytest.raises(VideoError):
        work([missing], notices)
    assert notices.said == []

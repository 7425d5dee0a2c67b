"""A process in which the kernel refuses a system call, as it does on a file system that lacks it."""

import ctypes
import os
import platform
import struct
import traceback
from collections.abc import Callable

import pytest

CALLS = {"x86_64": {"fsync": 74, "flock": 73}, "aarch64": {"fsync": 82, "flock": 32}}
"""Numbers of system calls by machine."""
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _IS_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000


def in_a_process_without(call: str, error: int, work: Callable[[], None]) -> None:
    """Runs `work` in a fork of this process where `call` ends with the errno `error`; AssertionError where it fails."""
    numbers = CALLS.get(platform.machine())
    if numbers is None:
        pytest.skip(f"the numbers of system calls of {platform.machine()} are not known here")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _refuse(numbers[call], error)
            work()
        except BaseException:  # noqa: BLE001  (the parent raises it)
            os.write(writer, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        fault = file.read().decode()
    os.waitpid(child, 0)
    assert not fault, fault


def _refuse(number: int, error: int) -> None:
    """Installs a filter of system calls, which this thread and what it starts keep."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = b"".join(
        struct.pack("HBBI", *line)
        for line in (
            (_LOAD, 0, 0, 0),
            (_IS_EQUAL, 0, 1, number),
            (_RETURN, 0, 0, _ERRNO | error),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    pointer = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(held)))
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, pointer, 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls can be installed")

"""A file system that is full, and grows when it is told to."""

import subprocess
from pathlib import Path

PAGE = 4096
"""Bytes of the smallest piece of it."""


class SmallDisk:
    """A tmpfs at `path`, of `size` bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, PAGE

    def mount(self) -> None:
        self.path.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path)

    def grow(self, pages: int) -> None:
        self.size += pages * PAGE
        _run("mount", "-o", f"remount,size={self.size}", self.path)

    def unmount(self) -> None:
        _run("umount", "--lazy", self.path)  # files of it may still be mapped


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)

"""The version of this package, and of every stage's code and files; `dvc.yaml` names this file."""

import subprocess
from pathlib import Path

__version__ = "0.2.0"

VERSIONS = {
    "ingest": 3,
    "mask": 2,
    "text": 1,
    "first_frame": 1,
    "heads": 2,
    "spatial": 4,
    "temporal": 4,
    "merge": 1,
    "render": 1,
    "evaluate": 9,
}
"""Of each pipeline stage: raised whenever the same inputs give another result or other files."""

BENCHMARK_VERSIONS = {"peer_tune": 2, "peer_render": 1, "reconstruct": 1}
"""Of each stage that only the benchmark runs."""


def code_version() -> str:
    """The Git commit of the checkout that this runs from (`git_commit`), else the version of the package."""
    return git_commit() or __version__


def git_commit() -> str | None:
    """The commit of the checkout that this runs from, 40 hex digits, `-dirty` if files differ; None outside one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # there is no git, or the checkout belongs to another user
        return None

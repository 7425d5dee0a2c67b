"""The version of this package, and of every stage's code and files; `dvc.yaml` names this file."""

import subprocess
from pathlib import Path

__version__ = "0.2.0"

VERSIONS = {"ingest": 1, "text": 1, "heads": 1, "spatial": 2, "temporal": 2, "render": 1, "evaluate": 6}
"""Of each pipeline stage: raised whenever the same inputs give another result or other files."""

BENCHMARK_VERSIONS = {"peer_tune": 1, "peer_render": 1, "reconstruct": 1}
"""Of each stage that only the benchmark runs."""


def code_version() -> str:
    """The Git commit (40 hex digits, `-dirty` if changed) of the checkout that this runs from, else the version."""
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):  # there is no git, or the checkout belongs to another user
            pass
    return __version__

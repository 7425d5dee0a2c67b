"""The version of this package, and of every stage's code and files; `dvc.yaml` names this file."""

__version__ = "0.2.0"

VERSIONS = {"ingest": 1, "text": 1, "heads": 1, "spatial": 2, "temporal": 2, "render": 1, "evaluate": 6}
"""Of each pipeline stage: raised whenever the same inputs give another result or other files."""

BENCHMARK_VERSIONS = {"peer_tune": 1, "peer_render": 1, "reconstruct": 1}
"""Of each stage that only the benchmark runs."""

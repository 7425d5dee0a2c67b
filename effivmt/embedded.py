"""The models, clips and videos that are installed with this package."""

from importlib import resources
from pathlib import Path

WAN_TINY, CLIP_TINY = "wan-tiny", "clip-tiny"
EMBEDDED = (WAN_TINY, CLIP_TINY)
"""The models that are installed with this package."""


def find_embedded(name: str) -> Path:
    """The folder of an embedded model by its bare name; of anything else (such as `./wan-tiny`) the path itself."""
    return data_folder() / name if name in EMBEDDED else Path(name)


def data_folder() -> Path:
    """The installed folder of the embedded models (`EMBEDDED`), sample clips (`samples`) and the benchmark's clips."""
    return Path(str(resources.files("effivmt_data")))

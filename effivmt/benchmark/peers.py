"""Params of the peers: their authors' values, then those of a YAML file with a section for each peer, then `--set`.

`peers.yaml` beside a suite's catalog holds the values that the search on the tuning clips has chosen.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from effivmt.config import Section, field_faults, set_value
from effivmt.errors import ParamsError
from effivmt.untrusted import read_yaml

PEERS = {
    "motion_director": "MotionDirectorParams",
    "ditflow": "DiTFlowParams",
    "smm": "SMMParams",
    "flow_motion": "FlowMotionParams",
}
"""By peer, the class of its params in its module of `effivmt.benchmark.baselines`."""
FILE = "peers.yaml"


def peer_module(name: str) -> ModuleType:
    """The module of a peer in `effivmt.benchmark.baselines`; slow to import."""
    return import_module(f"effivmt.benchmark.baselines.{name}")


def is_of_peer(override: str) -> bool:
    """Whether the section of `section.key=value` is a peer's."""
    return override.partition(".")[0].strip() in PEERS


def read_peers(path: Path) -> dict[str, object]:
    """The sections of a peers file, not yet validated; ParamsError where it is unreadable or has an unknown section."""
    try:
        tree = read_yaml(path) or {}
    except OSError as error:
        raise ParamsError(f"peers file {path} cannot be read ({error.strerror}); pass --peers FILE") from error
    except ValueError as error:
        raise ParamsError(f"peers file {path} {error}; correct it, or pass --peers FILE") from error
    if not isinstance(tree, dict) or (unknown := [name for name in tree if name not in PEERS]):
        given = f"has the section {unknown[0]!r:.60}" if isinstance(tree, dict) else f"holds a {type(tree).__name__}"
        raise ParamsError(f"peers file {path} {given}; expected sections {', '.join(PEERS)}")
    return tree


def peer_params(name: str, tree: Mapping[str, object], overrides: Sequence[str] = ()) -> Section:
    """A peer's params: its authors', its section of `tree`, then the overrides. ParamsError names a wrong field."""
    changed = dict(tree)
    for override in overrides:
        set_value(changed, override)
    try:
        return getattr(peer_module(name), PEERS[name]).model_validate(changed.get(name) or {})
    except ValidationError as error:
        raise ParamsError(f"peers are wrong: {field_faults(error, name)}") from error

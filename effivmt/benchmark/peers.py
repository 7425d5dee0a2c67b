"""Code and params of the peers: modules of `effivmt.benchmark.baselines` (FlowMotion, by which previews are made, is in
`effivmt.method`) or files of a user.

The params are their authors' values, then those of a YAML file with a section for each peer, then `--set`. `peers.yaml`
beside a suite's catalog holds the values that the search on the tuning clips has chosen. A user's file defines the
class `MethodParams` (a `Section`) and either `generate` or `tune`, with the arguments that `smm.py` and
`motion_director.py` take; its section for `--set` is named like the file.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from effivmt.config import Section
from effivmt.errors import ParamsError, in_one_line
from effivmt.params_file import field_faults, set_value
from effivmt.store.digests import sha256_file
from effivmt.untrusted import read_yaml

PEERS = {
    "motion_director": "MotionDirectorParams",
    "ditflow": "DiTFlowParams",
    "smm": "SMMParams",
    "flow_motion": "FlowMotionParams",
}
"""By peer, the class of its params in its module."""
FILE = "peers.yaml"
OWN_PARAMS = "MethodParams"
"""The class of the params in a user's file."""


def peer_module(peer: str) -> ModuleType:
    """The module of a peer by its name, or that of a user's file by its path; slow to import.

    ParamsError where the file cannot be imported, or lacks what a method needs.
    """
    if peer in PEERS:
        package = "effivmt.method" if peer == "flow_motion" else "effivmt.benchmark.baselines"
        return import_module(f"{package}.{peer}")
    name = f"effivmt_method_{Path(peer).stem}"  # by which params that come from another process find their class
    if name not in sys.modules:
        sys.modules[name] = _load(name, peer)
    return sys.modules[name]


def tunes(peer: str) -> bool:
    """Whether a peer tunes LoRAs on a clip; the others tune nothing and guide the sampling."""
    return hasattr(peer_module(peer), "tune")


def identity(peer: str) -> str:
    """What stands for a peer's code in keys: its name, whose stage has a version; of a user's file its SHA-256."""
    return peer if peer in PEERS else sha256_file(peer)


def section_of(peer: str) -> str:
    """The name of a peer's section of params."""
    return peer if peer in PEERS else Path(peer).stem


def is_of_peer(override: str, sections: Collection[str] = tuple(PEERS)) -> bool:
    """Whether the section of `section.key=value` is one of these sections of peers."""
    return override.partition(".")[0].strip() in sections


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


def peer_params(peer: str, tree: Mapping[str, object], overrides: Sequence[str] = ()) -> Section:
    """A peer's params: its authors', its section of `tree`, then the overrides. ParamsError names a wrong field."""
    changed, name = dict(tree), section_of(peer)
    for override in overrides:
        set_value(changed, override)
    try:
        return getattr(peer_module(peer), PEERS.get(peer, OWN_PARAMS)).model_validate(changed.get(name) or {})
    except ValidationError as error:
        raise ParamsError(f"peers are wrong: {field_faults(error, name)}") from error


def _load(name: str, path: str) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a path that ends in .py has both
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ParamsError(f"method file {path} cannot be imported ({in_one_line(error)}); correct it") from error
    params, makes = getattr(module, OWN_PARAMS, None), [hasattr(module, it) for it in ("generate", "tune")]
    if not (isinstance(params, type) and issubclass(params, Section)) or sum(makes) != 1:
        raise ParamsError(
            f"method file {path} needs a class {OWN_PARAMS}(Section) and either generate or tune; "
            "docs/benchmark.md has an example"
        )
    return module

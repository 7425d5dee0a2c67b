"""Params from a file or a preset, with `section.key=value` overrides."""

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from effivmt.config import Params
from effivmt.errors import ParamsError
from effivmt.untrusted import parse_yaml, read_yaml

DEFAULT_FILE = Path("params.yaml")
"""The params that are read where none are named, if the working folder has it."""
FAULTS_SHOWN = 10
"""An error lists at most this many wrong fields."""


def presets() -> dict[str, Path | None]:
    """The presets by name with their files; `tiny`, the defaults, has none."""
    files = Path(str(resources.files("effivmt.presets"))).glob("*.yaml")
    return {"tiny": None, **{path.stem: path for path in sorted(files)}}


def load_params(source: str | Path | None = None, overrides: Sequence[str] = ()) -> Params:
    """Reads a params file or a preset and applies `section.key=value` overrides (values are YAML).

    source: a file, else the name of a preset; None: `params.yaml` in the working folder if it is there, else `tiny`.
    Relative paths in a file are relative to it where they exist there. ParamsError names the field that is wrong.
    """
    known = presets()
    if source is None:
        path = DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    elif str(source) in known and not Path(source).is_file():
        path = known[str(source)]
    else:
        path = Path(source)
    tree = {} if path is None else _read_tree(path, ", ".join(known))
    for override in overrides:
        set_value(tree, override)
    try:
        params = Params.model_validate(tree)
    except ValidationError as error:
        where = f"file {path}" if path else "preset tiny"
        raise ParamsError(f"params are wrong: {field_faults(error)} ({where})") from error
    return params if path is None else _resolve_paths(params, path.resolve().parent)


def field_faults(error: ValidationError, *section: str) -> str:
    """The first faults of a tree of sections or of one section, each with its field, and how many more there are."""
    found = error.errors()
    fields = [".".join(f"{part!s:.40}" for part in (*section, *fault["loc"])) or "params" for fault in found]
    listed = [f"{field}: {fault['msg']:.200}" for field, fault in zip(fields, found, strict=True)]
    more = [f"and {len(found) - FAULTS_SHOWN} more"] if len(found) > FAULTS_SHOWN else []
    return "; ".join([*listed[:FAULTS_SHOWN], *more])


def _read_tree(path: Path, known: str) -> dict[str, Any]:
    try:
        tree = read_yaml(path) or {}
    except OSError as error:
        raise ParamsError(
            f"params file {path} cannot be read ({error.strerror}); pass --params with a file, or a preset: {known}"
        ) from error
    except ValueError as error:
        raise ParamsError(f"params file {path} {error}; correct it, or pass another file or preset") from error
    if not isinstance(tree, dict):
        raise ParamsError(f"params file {path} holds a {type(tree).__name__}; expected sections such as `temporal:`")
    return tree


def set_value(tree: dict[str, Any], override: str) -> None:
    """Sets what `section.key=value` (a YAML value) says in a tree of sections; ParamsError where it says nothing."""
    name, separator, text = override.partition("=")
    *sections, field = name.strip().split(".")
    if not separator or not field or len(sections) > 1:
        raise ParamsError(f"--set {override!r:.80} is not of the form section.key=value (such as temporal.rope=paper)")
    for section in sections:
        values = tree.get(section)
        if values is not None and not isinstance(values, dict):
            raise ParamsError(f"--set {override!r:.80}: {section!s:.40} is not a section")
        copied = dict(values or {})  # YAML aliases share one mapping
        tree[section] = copied
        tree = copied
    try:
        tree[field] = parse_yaml(text)
    except ValueError as error:
        raise ParamsError(f"--set {override!r:.80}: the value {error}") from error


def _resolve_paths(params: Params, root: Path) -> Params:
    def resolve(name: str) -> str:
        return str(root / name) if os.path.exists(root / name) else name  # unlike Path.exists, it never raises

    return params.model_copy(
        update={
            "backbone": params.backbone.model_copy(update={"path": resolve(params.backbone.path)}),
            "evaluate": params.evaluate.model_copy(
                update={name: resolve(path) for name, path in params.evaluate.model_dump().items() if path}
            ),
            "heads": params.heads.model_copy(
                update={"scope_clips": tuple(resolve(clip) for clip in params.heads.scope_clips)}
            ),
        }
    )

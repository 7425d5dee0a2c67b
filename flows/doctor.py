"""What `effivmt doctor` looks at: each check says what it found and what to mend; a broken package stops no other."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from effivmt.config import Params, load_params
from effivmt.errors import EffiVMTError
from tasks.location import check_writable, database_file, tracking_uri

SHOWN = ("torch", "diffusers", "peft", "transformers", "prefect", "mlflow", "dvc", "fastapi", "sqlalchemy")
"""Packages that get a line of their own; the others share one."""
LEAST_FREE = 5 * 2**30  # bytes; an adapter of the 14B model has half a gigabyte, the artifacts of its clip a few
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """What a check found; `remedy` is empty where all is well."""

    name: str
    found: str
    remedy: str = ""


def examine(params_file: Path, overrides: tuple[str, ...], store: Path) -> Iterator[Check]:
    """All checks, one by one as they are done."""
    yield from check_versions(metadata.requires("effivmt") or [], metadata.metadata("effivmt")["Requires-Python"])
    yield _guarded("ffmpeg", _ffmpeg)
    yield _guarded("machine", _machine)
    yield _guarded("gpu", _gpu)
    try:
        params = load_params(params_file, overrides)
    except EffiVMTError as error:
        yield Check("params", str(error), "write the file (README: Parameters) or name another with --params")
    else:
        yield Check("params", str(params_file))
        yield _guarded("backbone", lambda: check_backbone(params, store))
        yield _guarded("scorer", lambda: _scorer(params))
    yield check_folder("store", store, "--store DIR")
    yield _guarded("mlflow runs", _mlflow)
    yield check_space(store, LEAST_FREE)


def check_versions(requirements: list[str], python: str) -> Iterator[Check]:
    """Compares the installed packages with requirement lines such as "torch==2.13.0"; those of extras do not count."""
    own = platform.python_version()
    remedy = "" if own in SpecifierSet(python) else f"make the environment with Python {python}"
    yield Check("python", f"{own} (supported: {python})", remedy)
    well = 0
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, str(requirement.specifier) or "any"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, f"not installed (supported: {wanted})", f'pip install "{requirement}"')
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        if fits and name not in SHOWN:
            well += 1
        else:
            yield Check(name, f"{version} (supported: {wanted})", "" if fits else f'pip install "{requirement}"')
    yield Check("packages", f"{well} others as required")


def check_backbone(params: Params, store: Path) -> Check:
    """Opens every weights file of the backbone's components, and digests them all the first time."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    from safetensors import SafetensorError, safe_open

    from effivmt.backbone import COMPONENTS, Backbone

    path = params.backbone.path
    if not Path(path).is_dir():
        try:
            snapshot_download(path, local_files_only=True)
        except HFValidationError:
            return Check("backbone", f"{path} is no folder", "set backbone.path to a WanPipeline folder or a hub id")
        except LocalEntryNotFoundError:
            return Check("backbone", f"{path} is not on this machine", f"hf download {path}, or set backbone.path")
    backbone = Backbone(params.backbone, store / "backbones.json")
    for component in COMPONENTS:
        folder = backbone.folder / component
        for index in folder.glob("*.safetensors.index.json"):
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if missing := sorted(part for part in parts if not (folder / part).is_file()):
                return Check("backbone", f"{folder} lacks {missing[0]}", "copy or download the backbone again")
        for file in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(file, framework="np"):
                    pass
            except (SafetensorError, OSError) as error:
                return Check("backbone", f"{file} is damaged ({error})", "copy or download the backbone again")
    return Check(
        "backbone", f"{backbone.id}: {', '.join(COMPONENTS)}; digest {backbone.digest[:12]}; {backbone.device}"
    )


def check_folder(name: str, folder: Path, option: str) -> Check:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    existing = _existing(folder)
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Check(name, f"{folder} can be written")
    return Check(name, f"{folder} cannot be written", f"change the permissions of {existing}, or choose with {option}")


def check_space(folder: Path, least: int) -> Check:
    """Whether the folder's disk has `least` bytes free."""
    existing = _existing(folder)
    free = shutil.disk_usage(existing).free
    remedy = "" if free >= least else f"free some space: {least / GIB:.0f} GiB are needed"
    return Check("disk", f"{free / GIB:.1f} GiB free at {existing.resolve()}", remedy)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """The check, or what kept it from running."""
    try:
        return check()
    except EffiVMTError as error:
        return Check(name, str(error), "see the message")
    except ImportError as error:
        return Check(name, f"a package cannot be imported ({error})", "install EffiVMT again into a fresh environment")
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return Check(name, f"{type(error).__name__}: {' '.join(str(error).split())}", "mend or replace it")


def _ffmpeg() -> Check:
    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()
    shown = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return Check("ffmpeg", shown.split(" Copyright")[0])


def _machine() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    size = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB memory free"
    return Check("machine", f"{len(psutil.Process().cpu_affinity())} of {psutil.cpu_count()} CPU cores, {size}")


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", "none is visible; everything runs on the CPU")
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(f"{torch.cuda.get_device_name(index)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    return Check("gpu", "; ".join(found))


def _scorer(params: Params) -> Check:
    from effivmt.evaluation.similarity import ClipScorer

    ClipScorer(Path(params.evaluate.scorer))
    return Check("scorer", params.evaluate.scorer)


def _mlflow() -> Check:
    uri = tracking_uri()
    check_writable(uri)
    if database_file(uri) is None and uri.startswith(("http://", "https://")):
        try:
            urlopen(f"{uri.rstrip('/')}/health", timeout=5).close()
        except URLError as error:
            return Check(
                "mlflow runs", f"{uri} does not answer ({error.reason})", "start it, or set MLFLOW_TRACKING_URI"
            )
    return Check("mlflow runs", uri)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())

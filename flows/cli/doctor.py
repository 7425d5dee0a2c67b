"""What `effivmt doctor` looks at: each check says what it found or what to fix; a broken package stops no other."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from effivmt.config import NATIVE, Params
from effivmt.embedded import find_embedded
from effivmt.errors import EffiVMTError
from effivmt.params_file import DEFAULT_FILE, load_params
from effivmt_tasks.stores import REMOTE, open_remote
from effivmt_tasks.tracking.location import check_reachable, public_uri, tracking_uri

SHOWN = ("torch", "diffusers", "peft", "transformers", "prefect", "mlflow", "dvc", "fastapi", "sqlalchemy")
"""Packages that get a line of their own; the others share one."""
GIB = 2**30
LEAST_FREE = 5 * GIB
"""Bytes, for a few clips with videos; a backbone of which one clip takes more needs that."""


@dataclass(frozen=True)
class Check:
    """What a check found; where that is a fault, `text` ends in what to do."""

    name: str
    text: str
    ok: bool = True


def examine(source: str | None, overrides: Sequence[str], store: Path) -> Iterator[Check]:
    """All checks, one by one as they are done; of the small install, only those that pulling needs."""
    if not any(map(find_spec, ("torch", "prefect"))):
        yield Check("packages", 'adapters can be pulled; everything else needs pip install "effivmt[full]"')
        yield _guarded("mlflow runs", _mlflow)
        return
    yield from check_versions(metadata.requires("effivmt") or [], metadata.metadata("effivmt")["Requires-Python"])
    yield _guarded("ffmpeg", _ffmpeg)
    yield _guarded("machine", _machine)
    yield _guarded("gpu", _gpu)
    least = LEAST_FREE
    try:
        params = load_params(source, overrides)
    except EffiVMTError as error:
        yield Check("params", str(error), ok=False)
    else:
        yield Check("params", source or (str(DEFAULT_FILE) if DEFAULT_FILE.is_file() else "preset tiny"))
        yield (backbone := _guarded("backbone", lambda: check_backbone(params)))
        if backbone.ok:
            sizes: list[int] = []
            yield _guarded("plan", lambda: _plan(params, sizes))
            least = max(LEAST_FREE, *sizes)
        yield _guarded("scorer", lambda: _scorer(params))
    yield check_folder("store", store)
    yield check_space(store, least)
    if os.environ.get(REMOTE):
        yield _guarded("remote", _remote)
    yield _guarded("prefect server", _prefect)
    yield _guarded("mlflow runs", _mlflow)
    yield _guarded("proxies", _proxies)


def check_versions(requirements: list[str], python: str) -> Iterator[Check]:
    """Compares Python and the installed packages with requirement lines ("torch==2.13.0"), also of the extra `full`."""
    own = platform.python_version()
    fits = own in SpecifierSet(python)
    advice = "" if fits else "; make an environment with a supported Python"
    yield Check("python", f"{own} (supported: {python}){advice}", fits)
    others = 0
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "full"}):
            continue
        name, supported = requirement.name, f"(supported: {requirement.specifier or 'any'})"
        install = f'pip install "{name}{requirement.specifier}"'
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, f"not installed {supported}; {install}", ok=False)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Check(name, f"{version} {supported}; {install}", ok=False)
        elif name in SHOWN:
            yield Check(name, f"{version} {supported}")
        else:
            others += 1
    yield Check("packages", f"{others} others as required")


def check_backbone(params: Params) -> Check:
    """Reads the configs and headers of the backbone's components, and digests them all."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from effivmt.method.backbone_folder import find_backbone, has_weights
    from effivmt.method.device import pick_device

    path, revision = params.backbone.path, params.backbone.revision
    if not (folder := find_embedded(path)).is_dir():
        try:
            folder = Path(snapshot_download(path, revision=revision, local_files_only=True))
        except HFValidationError:
            advice = "set backbone.path to a WanPipeline folder or a hub id"
            return Check("backbone", f"{path} is neither a folder nor a hub id; {advice}", ok=False)
        except LocalEntryNotFoundError:
            folder = None
        if folder is None or not has_weights(folder):
            chosen = f" --revision {revision}" if revision else ""
            return Check("backbone", f"{path} is not on this machine; hf download {path}{chosen}", ok=False)
    found, device = find_backbone(params.backbone), pick_device(params.backbone.device, "backbone.device")
    if params.backbone.attention != NATIVE or params.backbone.compile:
        from effivmt.method.backbone import Backbone

        Backbone(params.backbone, found)  # it checks both
    return Check("backbone", f"{found.id}: {', '.join(found.shape.components)}; digest {found.digest[:12]}; {device}")


def check_folder(name: str, folder: Path) -> Check:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    above = (folder.absolute(), *folder.absolute().parents)
    existing = next(path for path in above if os.path.lexists(path))  # a link to nothing is in the way
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Check(name, f"{folder} can be written")
    except OSError as error:
        advice = f"mend {existing}, or choose another folder"
        return Check(name, f"{folder} cannot be written ({error.strerror}); {advice}", ok=False)


def check_space(folder: Path, least: int) -> Check:
    """Whether the folder's disk has `least` bytes free."""
    existing = _existing(folder)
    free = shutil.disk_usage(existing).free
    advice = "" if free >= least else f"; free some space, {least / GIB:.0f} GiB are needed"
    return Check("disk", f"{free / GIB:.1f} GiB free at {existing}{advice}", free >= least)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """The check, or what kept it from running."""
    try:
        return check()
    except EffiVMTError as error:
        return Check(name, str(error), ok=False)
    except ImportError as error:
        return Check(name, f"{error}; install EffiVMT again into a fresh environment", ok=False)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Check(name, f"{fault}; fix or replace it", ok=False)


def _ffmpeg() -> Check:
    from effivmt.media.encoding import ENCODER, FFMPEG_ADVICE, ffmpeg_program

    program = ffmpeg_program()
    try:
        shown, known = (
            subprocess.run([program, "-hide_banner", *words], capture_output=True, text=True, timeout=30, check=True)
            for words in (("-version",), ("-h", f"encoder={ENCODER}"))
        )
    except OSError as error:
        return Check("ffmpeg", f"{program} cannot be started ({error.strerror}); {FFMPEG_ADVICE}", ok=False)
    version = shown.stdout.split(" Copyright")[0]
    if f"Encoder {ENCODER}" not in known.stdout:
        return Check("ffmpeg", f"{program} ({version}) has no encoder {ENCODER}; {FFMPEG_ADVICE}", ok=False)
    return Check("ffmpeg", version)


def _machine() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    size = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB memory free"
    return Check("machine", f"{psutil.cpu_count()} CPU cores, {size}")


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", "none is visible; everything runs on the CPU")
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(f"{torch.cuda.get_device_name(index)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    return Check("gpu", "; ".join(found))


def _plan(params: Params, sizes: list[int]) -> Check:
    """What a clip takes; appends the bytes that it leaves on the disk to `sizes`."""
    from effivmt.planning.report import plan_run

    report = plan_run(params)
    sizes.append(report.disk_bytes)
    most = max(report.plan.costs, key=lambda cost: cost.device_bytes)
    found = (
        f"{most.stage} takes most memory, {most.device_bytes / GIB:.1f} GiB; {report.disk_bytes / GIB:.2f} GiB of disk"
    )
    return Check("plan", "; ".join(report.faults) or f"{found} a clip; effivmt plan shows more", not report.faults)


def _scorer(params: Params) -> Check:
    from effivmt.evaluation.measure import load_metric_models
    from effivmt.evaluation.scorer_folder import find_scorer, has_weights
    from effivmt.method.verbosity import silence_libraries

    silence_libraries()
    scorer = find_scorer(name := params.evaluate.scorer, weights=False).path
    if not has_weights(scorer):
        return Check("scorer", f"{name} is not on this machine; hf download {name}", ok=False)
    load_metric_models(scorer, params.evaluate.tracker)
    return Check("scorer", " and ".join(filter(None, (params.evaluate.scorer, params.evaluate.cotracker))))


def _remote() -> Check:
    remote = open_remote()
    assert remote is not None  # its variable is set
    remote.check()
    return Check("remote", f"{remote.name} can be written")


def _prefect() -> Check:
    from effivmt_tasks.server import examine_server

    return Check("prefect server", examine_server())


def _proxies() -> Check:
    """What talks to servers here; loopback is always asked directly (`effivmt_tasks`)."""
    named = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    shown = ", ".join(name for name in named if name.lower() != "no_proxy") or "none is set"
    lacking = [package for package in ("socksio", "socks") if not find_spec(package)]
    if lacking and any(value.lower().startswith("socks") for value in named.values()):
        install = "pip install socksio PySocks"
        return Check("proxies", f"{shown}: downloads and MLflow need packages for SOCKS; {install}", ok=False)
    return Check("proxies", shown)


def _mlflow() -> Check:
    uri = tracking_uri()
    check_reachable(uri)
    return Check("mlflow runs", public_uri(uri))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists; absolute."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())

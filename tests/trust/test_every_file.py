"""Every kind of file that a command reads, damaged in every way, and every command that reads it.

A command ends with the code 0, 1 or 2, in a few lines and without a traceback. Where it ends well although a file of
the store or of the out folder is damaged, its results are those of whole files.
"""

import time

import pytest
from harm import HARMS, harm
from project import Project, results
from trial import Tries

SECONDS = 120
INPUTS = {
    "a.mp4": ("transfer", "run", "dry run", "stage", "evaluate", "bench"),
    "c.csv": ("run", "stage", "bench"),
    "c.jsonl": ("run jsonl", "dry run"),
    "c.parquet": ("run parquet",),
    "params.yaml": ("transfer", "run", "dry run", "stage", "render", "evaluate", "doctor", "bench"),
    "images/2.png": ("run jsonl", "dry run"),
    "wan/model_index.json": ("transfer", "dry run", "render", "doctor"),
    "wan/*/*": ("transfer", "doctor"),
    "clip/*": ("stage", "evaluate"),
    "out/first/adapter/*": ("render", "merge", "sync"),
}
"""Pattern of files that others make -> the commands that read them."""
OURS = {
    "store/*/*/*": ("run", "stage"),
    "store/temporal/*/adapter/*": ("run", "dry run"),
    "store/backbones.json": ("run", "dry run", "render"),
    "store/pulled/*/*": ("render model",),
    "out/first/*": ("run", "animate", "sync"),
    "out/run.json": ("run", "retry", "sync"),
    "out/quarantine.csv": ("run", "retry"),
    "out/catalog.parquet": ("run", "sync"),
    "out/report.html": ("run",),
    "mlartifacts/*/artifacts/model/artifacts/adapter/*": ("pull", "render model"),
}
"""Pattern of files that the program itself makes -> the commands that read them."""
QUICK = (
    ("params.yaml", "cut", "transfer"), ("c.csv", "flip", "run"), ("a.mp4", "folder", "transfer"),
    ("out/first/transfer.json", "folder", "run"), ("out/run.json", "cut", "retry"),
    ("out/catalog.parquet", "cut", "run"),
    ("wan/vae/config.json", "gone", "transfer"), ("clip/model.safetensors", "cut", "evaluate"),
)  # fmt: skip


def check(project: Project, name: str, kind: str, command: str, *, ours: bool) -> str:
    """What is wrong with how a command ends after a harm; empty where nothing is."""
    project.restore()
    harm(project.root / name, kind)
    began = time.monotonic()
    try:
        ended = project.call(command)
    except Exception as error:  # noqa: BLE001  (all are reported together)
        return f"{name} {kind}, {command}: {type(error).__name__}: {error}"
    faults = []
    if ended.code not in (0, 1, 2) or "Traceback" in ended.err or ended.err.count("\n") > 12:
        faults.append(f"code {ended.code}, {ended.err}")
    if time.monotonic() - began > SECONDS:
        faults.append(f"took {time.monotonic() - began:.0f} s")
    if ours and name.startswith("store/") and ended.code:
        faults.append(f"does not heal: {ended.err}")
    in_out = name.startswith("out/")  # of whose files a run reads the sizes alone
    if ours and ended.code == 0 and command == "run" and not (in_out and kind == "flip"):
        different = results(project.root).items() ^ project.whole.items()
        if other := {name for name, _ in different if not name.endswith(".moved")}:
            faults.append(f"ends well with other files: {other}")
    return "".join(f"{name} {kind}, {command}: {fault}" for fault in faults)


@pytest.mark.parametrize(("name", "kind", "command"), QUICK)
def test_some_files(project: Project, name: str, kind: str, command: str) -> None:
    assert not check(project, name, kind, command, ours=name.startswith("out/"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pattern", [*INPUTS, *OURS])
def test_every_file(project: Project, tries: Tries, pattern: str) -> None:
    paths = sorted(path for path in project.root.glob(pattern) if path.is_file())
    names = [path.relative_to(project.root).as_posix() for path in paths]
    faults = []
    for name in names:
        for kind in HARMS:
            for command in (INPUTS | OURS)[pattern]:
                tries()
                faults.append(check(project, name, kind, command, ours=pattern in OURS))
    assert names and not any(faults), "\n".join(filter(None, faults))

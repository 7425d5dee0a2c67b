"""Every kind of file that a command reads, damaged in every way, and every command that reads it.

A command ends with the code 0, 1 or 2, in a few lines and without a traceback. Where it ends well although a file of
the store or of the out folder is damaged, its results are those of whole files.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from harm import HARMS, harm, outputs
from PIL import Image
from pyarrow import parquet
from trial import Ended, Tries, effivmt

SECONDS = 120
PROMPT = "a green circle"
ROW = {"clip": "first", "video": "a.mp4", "caption": "a red square", "prompts": [PROMPT]}
PARAMS = {
    "ingest": {"num_frames": 17, "height": 32, "width": 32, "fps": 8},
    "sampling": {"mode": "latent", "frames": 9, "phases": 2},
    "heads": {"noise_levels": [0.5], "alpha": 1.0},
    "spatial": {"rank": 2, "steps": 2, "batch": 2},
    "temporal": {"rank": 2, "steps": 2, "batch": 2},
    "render": {"steps": 1},
}
WITH_IMAGES = ROW | {"clip": "second", "appearance_images": "images"}


@dataclass(frozen=True)
class Project:
    """Models, catalogs, a store, the out folders of its clips, and a registry, at a place that never changes."""

    root: Path
    pristine: Path
    whole: dict[str, str]

    def restore(self) -> None:
        """Makes all files as they were, but for MLflow's database, which has an open connection."""
        for path in self.root.iterdir():
            if path.name != "mlflow.db":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(self.pristine, self.root, dirs_exist_ok=True)

    def call(self, command: str) -> Ended:
        root = self.root
        given = ["--params", root / "params.yaml"]
        places = [*given, "--store", root / "store", "--out", root / "out", "--engine", "local"]
        model = "models:/effivmt-first@champion"
        words: dict[str, list[object]] = {
            "transfer": ["transfer", root / "a.mp4", "--caption", "a red square", "--prompt", PROMPT, "--name", "first"]
            + places,
            "run": ["run", root / "c.csv", *places],
            "run jsonl": ["run", root / "c.jsonl", *places],
            "run parquet": ["run", root / "c.parquet", *places],
            "dry run": ["run", root / "c.jsonl", *places, "--dry-run"],
            "retry": ["run", root / "c.csv", *places, "--retry-failed"],
            "stage": ["stage", "evaluate", root / "c.csv", *places[:4], "--out", root / "stages"],
            "render": ["render", root / "out/first/adapter", "--prompt", PROMPT, "--out", root / "r.mp4", *places[:4]],
            "render model": ["render", model, "--prompt", PROMPT, "--out", root / "r.mp4", *places[:4]],
            "evaluate": ["evaluate", root / "a.mp4", root / "out/first/video-1.mp4", "--prompt", PROMPT, *given],
            "pull": ["pull", model, "--out", root / "pulled"],
            "sync": ["sync", root / "out"],
            "doctor": ["doctor", *given, "--store", root / "store"],
            "bench": ["bench", "--suite", root / "c.csv", "--method", "effivmt", "--out", root / "bench", *places[:4]],
        }
        return effivmt(*words[command])


@pytest.fixture(scope="session")
def project(
    tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, scorer_folder: Path, sample_video: Path
) -> Iterator[Project]:
    root, pristine = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("pristine")
    shutil.copytree(backbone_folder, root / "wan")
    shutil.copytree(scorer_folder, root / "clip")
    shutil.copyfile(sample_video, root / "a.mp4")
    (root / "images").mkdir()
    for number in range(5):
        Image.new("RGB", (40, 40), (50 * number, 0, 99)).save(root / f"images/{number}.png")
    params = PARAMS | {
        "backbone": {"path": str(root / "wan"), "max_sequence_length": 16},
        "evaluate": {"scorer": str(root / "clip")},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (root / "c.csv").write_text(f"clip,video,caption,prompts\nfirst,a.mp4,a red square,{PROMPT}\n", encoding="utf-8")
    (root / "c.jsonl").write_text("\n".join(map(json.dumps, (ROW, WITH_IMAGES))), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist([ROW]), root / "c.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        made = Project(root, pristine, {})
        for command in ("run", "sync", "render", "render model", "stage", "bench"):
            ended = made.call(command)
            assert ended.code == 0, (command, ended)
        shutil.rmtree(root / "stages")
        shutil.copytree(root, pristine, dirs_exist_ok=True)
        (pristine / "mlflow.db").unlink()
        yield Project(root, pristine, results(root))


def results(root: Path) -> dict[str, str]:
    """Digests of what a transfer of the first clip gives."""
    return {name: digest for name, digest in outputs(root / "out/first").items() if name != "tracked.json"}


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
    "out/first/adapter/*": ("render", "sync"),
}
"""Pattern of files that others make -> the commands that read them."""
OURS = {
    "store/*/*/*": ("run", "stage"),
    "store/temporal/*/adapter/*": ("run", "dry run"),
    "store/backbones.json": ("run", "dry run", "render"),
    "store/pulled/*/*": ("render model",),
    "out/first/*": ("run", "sync"),
    "out/run.json": ("run", "retry", "sync"),
    "out/quarantine.csv": ("run", "retry"),
    "out/catalog.parquet": ("run", "sync"),
    "out/report.html": ("run",),
    "mlartifacts/*/*/artifacts/model/**/*": ("pull", "render model"),
}
"""Pattern of files that the program itself makes -> the commands that read them."""
QUICK = (
    ("params.yaml", "cut", "transfer"), ("c.csv", "flip", "run"), ("a.mp4", "folder", "transfer"),
    ("out/first/transfer.json", "folder", "run"), ("out/run.json", "cut", "retry"), ("out/catalog.parquet", "cut", "run"),
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
    if ours and ended.code == 0 and command == "run" and results(project.root) != project.whole:
        other = {name for name, _ in results(project.root).items() ^ project.whole.items()}
        faults.append(f"ends well with other files: {other}")
    return "".join(f"{name} {kind}, {command}: {fault}" for fault in faults)


@pytest.mark.parametrize(("name", "kind", "command"), QUICK)
def test_some_files(project: Project, name: str, kind: str, command: str) -> None:
    assert not check(project, name, kind, command, ours=name.startswith("out/"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pattern", [*INPUTS, *OURS])
def test_every_file(project: Project, tries: Tries, pattern: str) -> None:
    project.restore()
    paths = sorted(path for path in project.root.glob(pattern) if path.is_file())
    names = [path.relative_to(project.root).as_posix() for path in paths]
    faults = []
    for name in names:
        for kind in HARMS:
            for command in (INPUTS | OURS)[pattern]:
                tries()
                faults.append(check(project, name, kind, command, ours=pattern in OURS))
    assert names and not any(faults), "\n".join(filter(None, faults))

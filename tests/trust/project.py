"""Everything that commands read, made once: models, catalogs, a store, out folders and a registry."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from harm import outputs
from PIL import Image
from pyarrow import parquet
from trial import Ended, effivmt

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

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Makes it the working folder, and its registry the one that is asked."""
        patch.chdir(self.root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{self.root}/mlflow.db")

    def restore(self) -> None:
        """Makes all files as they were, but for MLflow's database, which has an open connection."""
        for path in self.root.iterdir():
            if path.name != "mlflow.db":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(self.pristine, self.root, dirs_exist_ok=True)

    def words(self, command: str) -> list[object]:
        """The arguments of a command, by the name that it has here."""
        root = self.root
        given = ["--params", root / "params.yaml"]
        places = [*given, "--store", root / "store", "--out", root / "out", "--engine", "local"]
        clip = ["--caption", "a red square", "--prompt", PROMPT, "--name", "first"]
        model = "models:/effivmt-first@champion"
        words: dict[str, list[object]] = {
            "transfer": ["transfer", root / "a.mp4", *clip, *places],
            "run": ["run", root / "c.csv", *places],
            "run jsonl": ["run", root / "c.jsonl", *places],
            "run parquet": ["run", root / "c.parquet", *places],
            "dry run": ["run", root / "c.jsonl", *places, "--dry-run"],
            "retry": ["run", root / "c.csv", *places, "--retry-failed"],
            "stage": ["stage", "evaluate", root / "c.csv", *places[:4], "--out", root / "stages"],
            "render": ["render", root / "out/first/adapter", "--prompt", PROMPT, "--out", root / "r.mp4", *places[:4]],
            "render model": ["render", model, "--prompt", PROMPT, "--out", root / "r.mp4", *places[:4]],
            "evaluate": ["evaluate", root / "a.mp4", root / "out/first/video-1.mp4", "--prompt", PROMPT, *given],
            "merge": ["merge", *[root / "out/first/adapter"] * 2, "--out", root / "merged", *places[:4]],
            "animate": ["animate", root / "out/first", "--out", root / "animated.gif"],
            "pull": ["pull", model, "--out", root / "pulled"],
            "sync": ["sync", root / "out"],
            "doctor": ["doctor", *given, "--store", root / "store"],
            "bench": ["bench", "--suite", root / "c.csv", "--method", "effivmt", "--out", root / "bench", *places[:4]],
        }
        return words[command]

    def call(self, command: str) -> Ended:
        return effivmt(*self.words(command))


def made_project(root: Path, pristine: Path, *, backbone: Path, scorer: Path, video: Path) -> Project:
    """Makes a project in `root`, and a copy in `pristine`."""
    shutil.copytree(backbone, root / "wan")
    shutil.copytree(scorer, root / "clip")
    shutil.copyfile(video, root / "a.mp4")
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
    made = Project(root, pristine, {})
    with pytest.MonkeyPatch.context() as patch:
        made.enter(patch)
        for command in ("run", "sync", "render", "render model", "stage", "bench"):
            ended = made.call(command)
            assert ended.code == 0, (command, ended)
    shutil.rmtree(root / "stages")
    shutil.copytree(root, pristine, dirs_exist_ok=True)
    (pristine / "mlflow.db").unlink()
    return Project(root, pristine, results(root))


def results(root: Path) -> dict[str, str]:
    """Digests of what a transfer of the first clip gives."""
    return {name: digest for name, digest in outputs(root / "out/first").items() if name != "tracked.json"}

"""The recipe of the embedded models, step by step: autoencoder, latents, transformer, assemble; and the scorer.

Every step is deterministic, keeps its state in the work folder and goes on from there when it is run again. `PLAN` is
what the shipped weights were trained with, on one processor core, but for three things: their transformer's first two
phases saw the captions that are now held out; 4600 steps of its third followed the learning rate of a phase of 15,000;
and 3600 steps of the scorer saw a pool of 8000 clips at the rate of a training of 3600. More only makes it better.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file
from torch import nn

from effivmt.errors import BackboneError
from effivmt.pretrain import autoencoder, latents, scorer, text, transformer
from effivmt.world.looks import names_held_out

Report = Callable[[str, int, int, dict[str, float]], None]
"""Called with (step's name, units done, units in all, the newest figures)."""


@dataclass(frozen=True)
class Phase:
    """One run of a training loop: optimizer steps, the frames a sample may have (pixel for the autoencoder, latent
    frames for the transformer), learning rates; and of the transformer's the shift of the noise levels (a larger one
    trains what prompts decide), how many shards of latents it sees, and whether it multiplies in bfloat16, compiled."""

    name: str
    steps: int
    frames: tuple[int, ...]
    learning_rate: float
    final_rate: float = 1e-4
    decoder_only: bool = False
    flow_shift: float = 2.0
    shards: int = 0
    fast: bool = False


PLAN = {
    "autoencoder": (
        Phase("short", 6500, (5, 9), 1e-3),
        Phase("long", 5000, (9, 17, 33, 33), 8e-4),
    ),
    "transformer": (
        Phase("17 frames", 2600, (5, 5, 5, 1), 1.5e-3, 6e-4, shards=80),
        Phase("33 frames", 4800, (9, 5, 5, 1, 1), 1.2e-3, 5e-5, flow_shift=6.0, shards=80),
        Phase("more clips", 13000, (9, 9, 9, 5, 1), 1e-3, 2e-5, flow_shift=4.0, shards=320, fast=True),
    ),
}
SHARDS = 320
KINDS = {"object": 1.0}
BATCH = 16
SCORER_STEPS = 9000
SCORER_POOL = 20000


def train_autoencoder(work: Path, report: Report) -> None:
    """Trains the video autoencoder through its phases; leaves `work`/vae."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**autoencoder.CONFIG)
    for index, phase in enumerate(PLAN["autoencoder"]):
        folder = work / "autoencoder" / phase.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        autoencoder.train_autoencoder(
            vae,
            folder,
            steps=phase.steps,
            lengths=phase.frames,
            learning_rate=phase.learning_rate,
            decoder_only=phase.decoder_only,
            seed=index,
            report=lambda step, figures, phase=phase: report(f"autoencoder, {phase.name}", step, phase.steps, figures),
        )
    vae.save_pretrained(work / "vae")


def cache_latents(work: Path, report: Report) -> None:
    """Draws and encodes the training clips; leaves `work`/latents and their statistics."""
    vae = AutoencoderKLWan.from_pretrained(_made(work / "vae", "autoencoder")).eval()
    latents.cache_latents(
        vae,
        work / "latents",
        kinds=KINDS,
        shards=range(SHARDS),
        report=lambda shard: report("latents", shard + 1, SHARDS, {}),
    )
    first = PLAN["transformer"][0].shards * latents.SHARD
    mean, std = latents.latent_statistics(latents.load_latents(work / "latents")[0][:first])
    (work / "statistics.json").write_text(json.dumps({"mean": mean.tolist(), "std": std.tolist()}), encoding="utf-8")


def train_transformer(work: Path, report: Report) -> None:
    """Trains transformer and text encoder through their phases; the checkpoints stay under `work`/transformer.

    No caption names a combination of `world.looks.HELD_OUT_LOOKS`.
    """
    statistics = json.loads(_made(work / "statistics.json", "latents").read_text(encoding="utf-8"))
    mean, std = (torch.tensor(statistics[name]).view(-1, 1, 1, 1) for name in ("mean", "std"))
    cached, captions = latents.load_latents(work / "latents")
    for part in cached.split(256):
        part.copy_((part.float() - mean) / std)
    models = _models()
    for index, phase in enumerate(PLAN["transformer"]):
        folder = work / "transformer" / phase.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        count = phase.shards * latents.SHARD
        kept = [index for index in range(count) if not names_held_out(captions[index])]
        transformer.train_transformer(
            models["transformer"],
            models["text_encoder"],
            text.make_tokenizer(),
            cached[kept],
            [captions[index] for index in kept],
            folder,
            steps=phase.steps,
            batch=BATCH,
            frames=phase.frames,
            learning_rate=phase.learning_rate,
            final_rate=phase.final_rate,
            flow_shift=phase.flow_shift,
            seed=index,
            bfloat16=phase.fast,
            compile_blocks=phase.fast,
            report=lambda step, figures, phase=phase: report(f"transformer, {phase.name}", step, phase.steps, figures),
        )


def train_scorer(work: Path, report: Report) -> None:
    """Trains the scorer; leaves `work`/clip-tiny, a CLIPModel folder."""
    model = scorer.train_scorer(
        work / "scorer",
        steps=SCORER_STEPS,
        pool=SCORER_POOL,
        report=lambda step, figures: report("scorer", step, SCORER_STEPS, figures),
    )
    scorer.save_scorer(model, text.make_tokenizer(), work / "clip-tiny")


def assemble(work: Path, folder: Path) -> None:
    """Joins the trained parts into a WanPipeline folder of float16 safetensors that stock diffusers loads."""
    statistics = json.loads(_made(work / "statistics.json", "latents").read_text(encoding="utf-8"))
    phases = [work / "transformer" / p.name.replace(" ", "-") / "transformer.safetensors" for p in PLAN["transformer"]]
    trained = [path for path in phases if path.exists()]
    weights = load_file(_made(trained[-1] if trained else phases[0], "transformer"))
    vae = AutoencoderKLWan.from_pretrained(_made(work / "vae", "autoencoder"))
    vae.register_to_config(latents_mean=statistics["mean"], latents_std=statistics["std"], _name_or_path="wan-tiny")
    models = _models()
    with torch.no_grad():
        for name, parameter in models.named_parameters():
            parameter.copy_(weights[f"weights.average.{name}"])
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipeline = WanPipeline(
        tokenizer=text.make_tokenizer(),
        text_encoder=models["text_encoder"].half(),
        vae=vae.half(),
        scheduler=scheduler,
        transformer=models["transformer"].half(),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def _models() -> nn.ModuleDict:
    """The transformer and its text encoder before training."""
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "transformer": WanTransformer3DModel(**transformer.CONFIG),
            "text_encoder": text.make_text_encoder(len(text.make_tokenizer())),
        }
    )


def _made(path: Path, step: str) -> Path:
    if not path.exists():
        raise BackboneError(f"{path} is not there; run the recipe's step `{step}` first")
    return path

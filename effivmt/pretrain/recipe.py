"""The recipe of the embedded models, step by step: autoencoder, latents, transformer, assemble; and the scorer.

Every step is deterministic, keeps its state in the work folder and goes on from there when it is run again. The
transformer learns looks and places from stills, which cost a ninth of a clip, then paths from a few latent frames of
each clip, and last whole clips. From the weights of a backbone folder, which has learned the former, it goes on with
whole clips.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, UMT5EncoderModel

from effivmt.errors import BackboneError
from effivmt.pretrain import autoencoder, latents, scorer, text, transformer
from effivmt.world.looks import names_held_out
from effivmt.world.scenes import draw_clip, draw_still

Report = Callable[[str, int, int, dict[str, float]], None]
"""Called with (step's name, units done, units in all, the newest figures)."""


@dataclass(frozen=True)
class Phase:
    """One run of a training loop: optimizer steps, the frames a sample may have (pixel for the autoencoder, latent
    frames for the transformer), learning rates; and of the transformer's the shift of the noise levels (a larger one
    trains what prompts decide)."""

    name: str
    steps: int
    frames: tuple[int, ...]
    learning_rate: float
    final_rate: float = 1e-4
    decoder_only: bool = False
    flow_shift: float = 2.0


PLAN = {
    "autoencoder": (
        Phase("short", 6500, (5, 9), 1e-3),
        Phase("long", 5000, (9, 17, 33, 33), 8e-4),
    ),
    "transformer": (
        Phase("stills", 2000, (1,), 1e-3, 4e-4, flow_shift=3.0),
        Phase("sparse", 600, (3, 3, 3, 1), 1e-3, 3e-4, flow_shift=4.0),
        Phase("whole", 4500, (9, 3, 1), 1e-3, 2e-5, flow_shift=4.0),
    ),
}
KINDS = {"object": 0.7, "camera": 0.1, "pair": 0.1, "figure": 0.1}
CLIPS, STILLS = range(160), range(184)
"""Shards of 64 clips and stills that the transformer sees."""
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
    """Draws and encodes the training clips and stills; leaves `work`/clips, `work`/stills and their statistics.

    An autoencoder that has statistics in its config, as that of a backbone folder has, keeps them.
    """
    vae = AutoencoderKLWan.from_pretrained(_made(work / "vae", "autoencoder")).eval()
    sets = {
        "clips": (CLIPS, lambda index: draw_clip(101, index, kinds=KINDS)),
        "stills": (STILLS, lambda index: draw_still(102, index, kinds=KINDS)),
    }
    for name, (shards, draw) in sets.items():
        latents.cache_latents(
            vae,
            work / name,
            draw,
            shards=shards,
            report=lambda shard, name=name, shards=shards: report(name, shard + 1, len(shards), {}),
        )
    mean, std = vae.config.latents_mean, vae.config.latents_std
    if not any(mean):
        mean, std = (x.tolist() for x in latents.latent_statistics(latents.load_latents(work / "clips", CLIPS).latents))
    (work / "statistics.json").write_text(json.dumps({"mean": mean, "std": std}), encoding="utf-8")


def train_transformer(work: Path, report: Report, *, start: Path | None = None) -> None:
    """Trains transformer and text encoder through their phases; the checkpoints stay under `work`/transformer.

    From the weights of the backbone folder `start`, whose autoencoder must be that of the latents, only the last phase
    is trained. No caption names a combination of `world.looks.HELD_OUT_LOOKS`. Processors with bfloat16 products use
    them.
    """
    statistics = json.loads(_made(work / "statistics.json", "latents").read_text(encoding="utf-8"))
    clips, stills = (
        _training_set(work / name, shards, statistics) for name, shards in (("clips", CLIPS), ("stills", STILLS))
    )
    models = initial_models(start)
    phases = list(enumerate(PLAN["transformer"]))
    for index, phase in phases if start is None else phases[-1:]:
        folder = work / "transformer" / phase.name
        folder.mkdir(parents=True, exist_ok=True)
        transformer.train_transformer(
            models["transformer"],
            models["text_encoder"],
            text.make_tokenizer(),
            clips,
            stills,
            folder,
            steps=phase.steps,
            batch=BATCH,
            frames=phase.frames,
            learning_rate=phase.learning_rate,
            final_rate=phase.final_rate,
            flow_shift=phase.flow_shift,
            seed=index,
            bfloat16=bool(torch.cpu.get_capabilities().get("avx512_bf16")),
            compile_blocks=True,
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
    phases = [work / "transformer" / phase.name / "transformer.safetensors" for phase in PLAN["transformer"]]
    trained = [path for path in phases if path.exists()]
    weights = load_file(_made(trained[-1] if trained else phases[0], "transformer"))
    vae = AutoencoderKLWan.from_pretrained(_made(work / "vae", "autoencoder"))
    vae.register_to_config(latents_mean=statistics["mean"], latents_std=statistics["std"], _name_or_path="wan-tiny")
    models = initial_models()
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


def initial_models(start: Path | None = None) -> nn.ModuleDict:
    """`transformer` and `text_encoder` before training: random, or float32 weights of the backbone folder `start`.

    Words that the folder's tokenizer does not know start from random embeddings. BackboneError: no such folder.
    """
    torch.manual_seed(0)
    tokenizer = text.make_tokenizer()
    models = nn.ModuleDict(
        {
            "transformer": WanTransformer3DModel(**transformer.CONFIG),
            "text_encoder": text.make_text_encoder(len(tokenizer)),
        }
    )
    if start is not None:
        if not (start / "transformer" / "config.json").is_file():
            raise BackboneError(f"{start} is no WanPipeline folder; give --start one, such as data/wan-tiny")
        models["transformer"].load_state_dict(
            WanTransformer3DModel.from_pretrained(start, subfolder="transformer").state_dict()
        )
        trained = UMT5EncoderModel.from_pretrained(start / "text_encoder", dtype=torch.float32).state_dict()
        known, embedding = AutoTokenizer.from_pretrained(start / "tokenizer").get_vocab(), trained["shared.weight"]
        words = models["text_encoder"].shared.weight.detach().clone()
        for word, number in tokenizer.get_vocab().items():
            if word in known:
                words[number] = embedding[known[word]]
        trained |= {name: words for name in trained if name.endswith(("shared.weight", "embed_tokens.weight"))}
        models["text_encoder"].load_state_dict(trained)
    return models


def _training_set(folder: Path, shards: range, statistics: dict[str, list[float]]) -> latents.Captioned:
    """Normalised latents without the clips whose captions name a held-out look."""
    data = latents.load_latents(folder, shards)
    mean, std = (torch.tensor(statistics[name]).view(-1, 1, 1, 1) for name in ("mean", "std"))
    for part in data.latents.split(256):
        part.copy_((part.float() - mean) / std)
    kept = [index for index, caption in enumerate(data.captions) if not names_held_out(caption)]
    return latents.Captioned(data.latents[kept], [data.captions[index] for index in kept])


def _made(path: Path, step: str) -> Path:
    if not path.exists():
        raise BackboneError(f"{path} is not there; run the recipe's step `{step}` first")
    return path

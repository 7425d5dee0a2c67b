"""The recipe of the embedded models, step by step: autoencoder, latents, transformer, assemble; and the scorer.

Every step is deterministic on one kind of device, keeps its state in the work folder and resumes from there; a plan
(`effivmt.pretrain.plans`) says how much is trained. The transformer learns looks and places from stills, then paths
from a few latent frames of each clip, and last whole clips of any length, so that only the time axis places a frame.
Started from a backbone folder, the transformer skips the phase of stills. The autoencoder then holds its latents near
those of the folder, so that the transformer still knows them.
"""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, UMT5EncoderModel

from effivmt.errors import BackboneError
from effivmt.method.backbone_checks import FIRST_FRAME
from effivmt.pretrain import autoencoder, curves, latents, scorer, text, transformer
from effivmt.pretrain.drawing import Draw, drawing
from effivmt.pretrain.plans import Plan
from effivmt.pretrain.pool import Pool
from effivmt.world.looks import names_held_out
from effivmt.world.motions import NAMED
from effivmt.world.scenes import Mix, WorldClip, draw_clip, draw_still

Report = Callable[[str, int, int, dict[str, float]], None]
"""Called with (step's name, units done, units in all, the newest figures)."""
KINDS = {"object": 0.42, "camera": 0.18, "pair": 0.28, "figure": 0.12}
MIX = Mix(
    patterned_object=0.2,
    patterned_ground=0.12,
    motions=dict.fromkeys(NAMED, 1.0) | {"bouncing": 3.0, "moving in a circle": 5.0},
)
"""Paths that turn back take more clips to learn than straight ones."""
STILL_KINDS = {"object": 0.70, "camera": 0.05, "pair": 0.20, "figure": 0.05}
STILL_MIX = Mix(patterned_object=0.07, patterned_ground=0.05)
"""A plain object on a plain ground shows its shape best, and in the clips it is one of many things."""


def train_autoencoder(
    work: Path, report: Report, plan: Plan, device: torch.device, *, start: Path | None = None
) -> None:
    """Trains the video autoencoder through its phases; leaves `work`/vae, and its curve under `work`/autoencoder.

    From the weights of the backbone folder `start` it goes on with the last phase, its latents held near what the
    folder's transformer knows.
    """
    torch.manual_seed(0)
    near = None
    if start is None:
        vae = AutoencoderKLWan(**autoencoder.CONFIG).to(device)
    else:
        vae = AutoencoderKLWan.from_pretrained(_part(start, "vae"), dtype=torch.float32).to(device)
        near = copy.deepcopy(vae).eval().requires_grad_(False)
    phases, logs = list(enumerate(plan.autoencoder)), []
    for index, phase in phases if start is None else phases[-1:]:
        folder = work / "autoencoder" / phase.name
        folder.mkdir(parents=True, exist_ok=True)
        log = autoencoder.train_autoencoder(
            vae,
            folder,
            steps=phase.steps,
            lengths=phase.frames,
            batch_frames=plan.crop_frames,
            pool=plan.crop_clips,
            save_every=_save_every(device, 250),
            learning_rate=phase.learning_rate,
            near=near,
            seed=index,
            report=_report_of(report, f"autoencoder, {phase.name}", phase.steps),
        )
        logs.append(log)
    curves.write_psnr_curve(work / "autoencoder" / "curve.png", "Autoencoder: crops it is trained on", logs)
    vae.save_pretrained(work / "vae")


def measure_latents(work: Path, report: Report, plan: Plan, device: torch.device) -> None:
    """Measures how the channels of the latents are normalised; leaves `work`/statistics.json.

    An autoencoder that has statistics in its config, as that of a backbone folder has, keeps them.
    """
    vae = AutoencoderKLWan.from_pretrained(_made(work / "vae", "autoencoder")).to(device).eval()
    mean, std = vae.config["latents_mean"], vae.config["latents_std"]
    if not any(mean):
        draw, parts = partial(draw_clip, 101, kinds=KINDS, mix=MIX), []
        with drawing() as draw_all:
            for start in range(0, plan.measured_clips, 64):
                numbers = range(start, min(start + 64, plan.measured_clips))
                parts.append(latents.encode_clips(vae, draw_all(draw, numbers)))
                report("latents", numbers.stop, plan.measured_clips, {})
        clips = torch.cat(parts)
        mean, std = latents.latent_statistics(clips)
        mean, std = mean.tolist(), (std / latents.channel_scales(vae, clips, std)).tolist()
    (work / "statistics.json").write_text(json.dumps({"mean": mean, "std": std}), encoding="utf-8")


def train_transformer(
    work: Path, report: Report, plan: Plan, device: torch.device, *, start: Path | None = None
) -> None:
    """Trains transformer and text encoder through their phases, on clips that are drawn meanwhile; leaves the
    checkpoints and the loss's curve under `work`/transformer.

    From the weights of the backbone folder `start`, whose autoencoder must be that in `work`, all phases but the first
    are trained: it knows what stills teach. No caption names a combination of `world.looks.HELD_OUT_LOOKS`.
    """
    statistics = json.loads(_made(work / "statistics.json", "latents").read_text(encoding="utf-8"))
    vae = AutoencoderKLWan.from_pretrained(_made(work / "vae", "autoencoder")).to(device).eval()
    models, tokenizer = initial_models(start).to(device), text.make_tokenizer()
    phases, logs = list(enumerate(plan.transformer)), []
    for index, phase in phases if start is None else phases[1:]:
        folder = work / "transformer" / phase.name
        folder.mkdir(parents=True, exist_ok=True)
        with drawing() as draw_all:
            pools = {
                frames: Pool(
                    work / "clips" / phase.name / f"{frames:02d}",
                    partial(_captioned, vae, statistics, draw_all=draw_all, draw=_drawn(index, frames)),
                    tokenizer,
                    plan.supply,
                    length=frames,
                    device=device,
                )
                for frames in {transformer.pool_of(count, phase.sparse_of) for count in phase.frames}
            }
            log = transformer.train_transformer(
                cast(WanTransformer3DModel, models["transformer"]),
                cast(UMT5EncoderModel, models["text_encoder"]),
                tokenizer,
                pools,
                folder=folder,
                steps=phase.steps,
                batch_frames=plan.batch_frames,
                frames=phase.frames,
                sparse_of=phase.sparse_of,
                continued=phase.continued,
                learning_rate=phase.learning_rate,
                final_rate=phase.final_rate,
                flow_shift=phase.flow_shift,
                average=phase.average,
                seed=index,
                fast=True,
                save_every=_save_every(device, 200),
                report=_report_of(report, f"transformer, {phase.name}", phase.steps),
            )
        logs.append(log)
    curves.write_loss_curve(work / "transformer" / "curve.png", "Transformer: flow-matching loss", logs)


def train_scorer(work: Path, report: Report, plan: Plan, device: torch.device, *, start: Path | None = None) -> None:
    """Trains the scorer through its phases; leaves `work`/clip-tiny, a CLIPModel folder, and the loss's curve under
    `work`/scorer.

    From the weights of the scorer folder `start` it goes on with the last phase, whose patches may be finer.
    """
    trained = None if start is None else scorer.load_scorer(_part(start))
    phases, logs = list(plan.scorer_steps.items()), []
    for patch, steps in phases if start is None else phases[-1:]:
        model, log = scorer.train_scorer(
            work / "scorer" / f"patches-of-{patch}",
            steps=steps,
            device=device,
            patch=patch,
            start=trained,
            batch=plan.scorer_batch,
            pool=plan.scorer_clips,
            learning_rate=1e-3 if trained is None else 7e-4,
            save_every=_save_every(device, 200),
            report=_report_of(report, f"scorer, patches of {patch}", steps),
        )
        trained = model, text.make_tokenizer()
        logs.append(log)
    curves.write_loss_curve(work / "scorer" / "curve.png", "Scorer: contrastive loss", logs)
    scorer.save_scorer(model, text.make_tokenizer(), work / "clip-tiny")


def assemble(work: Path, folder: Path, plan: Plan) -> None:
    """Joins the trained parts into a WanPipeline folder of float16 safetensors that stock diffusers loads."""
    statistics = json.loads(_made(work / "statistics.json", "latents").read_text(encoding="utf-8"))
    phases = [work / "transformer" / phase.name / "transformer.safetensors" for phase in plan.transformer]
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
        tokenizer=text.make_tokenizer(),  # type: ignore[arg-type]  # diffusers says AutoTokenizer, which makes others
        text_encoder=cast(UMT5EncoderModel, models["text_encoder"]).half(),
        vae=vae.half(),
        scheduler=scheduler,
        transformer=cast(WanTransformer3DModel, models["transformer"]).half(),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8")) | {FIRST_FRAME: True}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
        models["transformer"].load_state_dict(
            WanTransformer3DModel.from_pretrained(_part(start, "transformer")).state_dict()
        )
        trained = UMT5EncoderModel.from_pretrained(start / "text_encoder", dtype=torch.float32).state_dict()
        known, fresh = AutoTokenizer.from_pretrained(start / "tokenizer"), models["text_encoder"].state_dict()
        words = text.carry_words(trained["shared.weight"], known, fresh["shared.weight"], tokenizer)
        trained |= {name: words for name in trained if name.endswith(("shared.weight", "embed_tokens.weight"))}
        models["text_encoder"].load_state_dict(trained)
    return models


def _drawn(phase: int, frames: int) -> Draw:
    """What draws the stills (of one latent frame) or clips of a phase: each has a data set of the world of its own."""
    world = 1000 + 100 * phase + frames
    if frames == 1:
        return partial(draw_still, world, kinds=STILL_KINDS, mix=STILL_MIX)
    return partial(draw_clip, world, kinds=KINDS, mix=MIX, num_frames=4 * frames - 3)


def _captioned(
    vae: AutoencoderKLWan,
    statistics: dict[str, list[float]],
    numbers: range,
    *,
    draw_all: Callable[[Draw, range], list[WorldClip]],
    draw: Draw,
) -> latents.Captioned:
    """Normalised latents of the clips with these numbers, without those whose captions name a held-out look."""
    clips = [clip for clip in draw_all(draw, numbers) if not names_held_out(clip.caption)]
    mean, std = (torch.tensor(statistics[name]).view(-1, 1, 1, 1) for name in ("mean", "std"))
    normalised = (latents.encode_clips(vae, clips).float() - mean) / std
    return latents.Captioned(normalised.half(), [clip.caption for clip in clips])


def _report_of(report: Report, name: str, steps: int) -> Callable[[int, dict[str, float]], None]:
    """What a training loop of `steps` steps calls with (steps done, the newest figures): `report` under that name."""
    return lambda step, figures: report(name, step, steps, figures)


def _part(folder: Path, name: str = "") -> Path:
    """The model in a folder that --start names. BackboneError: there is none."""
    if not (folder / name / "config.json").is_file():
        right = "WanPipeline folder; give --start one, such as data/wan-tiny"
        right = right if name else "CLIPModel folder; give --start one, such as data/clip-tiny"
        raise BackboneError(f"{folder} is no {right}")
    return folder / name


def _save_every(device: torch.device, steps: int) -> int:
    """Steps between checkpoints: `steps` on a processor; a GPU is through those in seconds."""
    return steps if device.type == "cpu" else 10 * steps


def _made(path: Path, step: str) -> Path:
    """`path`, which the recipe's step `step` writes. BackboneError: it is not there."""
    if not path.exists():
        raise BackboneError(f"{path} is not there; run the recipe's step `{step}` first")
    return path

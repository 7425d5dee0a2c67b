"""What each stage takes under the choices for memory: bytes on the GPU, on the host and on the disk, and FLOPs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from effivmt.config import LoraParams, Params
from effivmt.method.experts import ONLY, Expert
from effivmt.method.memory_choices import MemoryChoices
from effivmt.planning import runs
from effivmt.planning.counting import META, Counter, counted
from effivmt.planning.models import autoencoder_without_data, text_encoder_without_data, transformer_without_data

STAGES = ("ingest", "text", "heads", "spatial", "temporal", "render")
TEXTS = 3
"""Texts of a clip with one prompt: its caption, the prompt and the negative prompt."""
FEW, MORE = 4, 8
"""Layers that are counted: from the first number to the second, and beyond, bytes and FLOPs grow evenly."""
_READ = {
    "ingest": (),
    "text": ("text_on_host",),
    "heads": ("offloaded_blocks", "float8_base"),
    "spatial": ("spatial_checkpointing", "float8_base"),
    "temporal": ("temporal_checkpointing", "activations_on_host", "float8_base"),
    "render": ("tiled_decoding", "offloaded_blocks", "float8_base"),
}
Count = Callable[[WanTransformer3DModel], Counter]


@dataclass(frozen=True)
class Work:
    """Peak of the bytes on the GPU, and FLOPs."""

    peak: int
    flops: int


@dataclass(frozen=True)
class StageCost:
    """What one stage takes: bytes on the GPU and, of weights that pass through it, on the host; bytes on the disk.

    flops: of a clip with one prompt, with and without the adapter where the params ask for both.
    """

    stage: str
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    flops: float


class StageCounter:
    """Counts the stages of a run with these params on the backbone whose configs are in `folder`.

    experts: its transformers, which are of one size; each is tuned alone, and rendering holds all. One that needs an
    image has no stage 2.
    """

    def __init__(self, folder: Path, params: Params, experts: Sequence[Expert] = (ONLY,)) -> None:
        self.folder, self.params, self.experts = folder, params, experts
        self.tuned = len(experts) if params.backbone.experts == "all" else 1
        self.dtype: torch.dtype = getattr(torch, params.backbone.dtype)
        config = WanTransformer3DModel.load_config(folder / "transformer")
        self.layers: int = config["num_layers"]
        self.needs_image = config.get("in_channels", 16) != config.get("out_channels", 16)
        self._costs: dict[tuple[str, MemoryChoices], StageCost] = {}
        self._works: dict[tuple[str, MemoryChoices], Work] = {}

    def cost(self, stage: str, choices: MemoryChoices) -> StageCost:
        """What a stage takes under these choices; each is counted once."""
        own = _of_stage(stage, choices)
        if (stage, own) not in self._costs:
            self._costs[stage, own] = getattr(self, f"_{stage}")(own)
        return self._costs[stage, own]

    def render_flops(self, choices: MemoryChoices) -> tuple[int, int]:
        """FLOPs of one pass of the adapted transformer and of the decoding of a video."""
        own = _of_stage("render", choices)
        return self._forward(own).flops, self._decoding(own).flops

    @property
    def latent_frames(self) -> int:
        """F of the clip."""
        return (self.params.ingest.num_frames - 1) // 4 + 1

    def latent_shape(self, frames: int) -> tuple[int, int, int, int]:
        """(C, F, h, w) of latents."""
        config, size = AutoencoderKLWan.load_config(self.folder / "vae"), self.params.ingest
        scale = config.get("scale_factor_spatial", 8)
        return config.get("z_dim", 16), frames, size.height // scale, size.width // scale

    def _ingest(self, _: MemoryChoices) -> StageCost:
        vae, size = autoencoder_without_data(self.folder), self.params.ingest
        frames, picture = size.num_frames, (size.height, size.width)
        whole, single = (runs.count_encoding(vae, (1, 3, length, *picture)) for length in (frames, 1))
        latents = 4 * math.prod(self.latent_shape(self.latent_frames + frames))
        disk = 3 * frames * math.prod(picture) + latents
        return StageCost("ingest", whole.peak, _bytes_of(vae), disk, whole.flops + frames * single.flops)

    def _text(self, choices: MemoryChoices) -> StageCost:
        encoder = text_encoder_without_data(self.folder, self.dtype)
        tokens = torch.zeros(1, self.params.backbone.max_sequence_length, dtype=torch.int64, device=META)
        with torch.no_grad(), counted([encoder]) as counter:
            encoder(tokens, torch.ones_like(tokens))
        on_device = 0 if choices.text_on_host else counter.peak
        host = counter.peak if choices.text_on_host else _bytes_of(encoder)
        width: int = encoder.config.d_model
        return StageCost("text", on_device, host, TEXTS * 4 * tokens.numel() * width, TEXTS * counter.flops)

    def _heads(self, choices: MemoryChoices) -> StageCost:
        shape = (1, *self.latent_shape(self.latent_frames))
        count = partial(runs.count_heads, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        work, levels = self._all_layers("heads", choices, count), len(self.params.heads.noise_levels)
        return StageCost("heads", work.peak, self._weights(choices), 0, self.tuned * levels * work.flops)

    def _spatial(self, choices: MemoryChoices) -> StageCost:
        if self.params.spatial.steps == 0 or self.needs_image:
            return StageCost("spatial", 0, 0, 0, 0.0)
        channels, _, height, width = self.latent_shape(1)
        shape = (self.params.ingest.num_frames, channels, 1, height, width)
        count = partial(runs.count_spatial, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        return self._tuned("spatial", choices, self._all_layers("spatial", choices, count), self.params.spatial)

    def _temporal(self, choices: MemoryChoices) -> StageCost:
        sampling = self.params.sampling
        samples, frames = 1, self.latent_frames
        if sampling.mode == "pixel":
            samples, frames = sampling.phases, sampling.latent_frames
        shape = (samples, *self.latent_shape(frames))
        count = partial(runs.count_temporal, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        return self._tuned("temporal", choices, self._all_layers("temporal", choices, count), self.params.temporal)

    def _render(self, choices: MemoryChoices) -> StageCost:
        params, vae = self.params.render, autoencoder_without_data(self.folder)
        forward, decoding = self._forward(choices), self._decoding(choices)
        transformer = transformer_without_data(self.folder, self.dtype, float8=choices.float8_base, layers=2)
        held = 0  # of the LoRAs: merged into float32 weights, they are gone
        if self.dtype != torch.float32:
            ranks = self.params.spatial.rank, self.params.temporal.rank
            held = sum(map(self._lora_bytes, ranks)) * self.dtype.itemsize // torch.float32.itemsize
        held += _bytes_of(transformer) if choices.offloaded_blocks else self._weights(choices)
        others = (len(self.experts) - 1) * held
        peak = others + max(forward.peak + _bytes_of(vae), held + decoding.peak)
        passes = params.steps * (2 if params.guidance_scale > 1 else 1)
        videos = len(params.seeds) * (2 if params.baseline else 1)
        flops = videos * (passes * forward.flops + decoding.flops)
        return StageCost("render", peak, len(self.experts) * self._weights(choices) + _bytes_of(vae), 0, flops)

    def _forward(self, choices: MemoryChoices) -> Work:
        shape = (1, *self.latent_shape(self.latent_frames))
        count = partial(runs.count_forward, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        return self._all_layers("forward", replace(choices, tiled_decoding=False), count)

    def _decoding(self, choices: MemoryChoices) -> Work:
        known = "decoding", MemoryChoices(tiled_decoding=choices.tiled_decoding)
        if known not in self._works:
            vae = autoencoder_without_data(self.folder)
            if choices.tiled_decoding:
                vae.enable_tiling()
            counter = runs.count_decoding(vae, (1, *self.latent_shape(self.latent_frames)))
            self._works[known] = Work(counter.peak, counter.flops)
        return self._works[known]

    def _tuned(self, stage: str, choices: MemoryChoices, work: Work, params: LoraParams) -> StageCost:
        """The cost of a tuning stage: its LoRA, and of stage 3 the appearance LoRA too and both joined, and a
        checkpoint of weights and two moments.
        """
        own, looks = self._lora_bytes(params.rank), self.params.spatial
        disk = 4 * own
        if stage == "temporal":
            disk = 5 * own + 2 * (self._lora_bytes(looks.rank) if looks.steps and not self.needs_image else 0)
        flops = params.steps * work.flops / runs.COUNTED_STEPS
        return StageCost(stage, work.peak, self._weights(choices), self.tuned * disk, self.tuned * flops)

    def _all_layers(self, what: str, choices: MemoryChoices, count: Count) -> Work:
        """What all layers take, from what a few and some more take."""
        known = what, choices
        if known not in self._works:
            few, more = (min(layers, self.layers) for layers in (FEW, MORE))
            counters = [count(self._transformer(choices, layers)) for layers in dict.fromkeys((few, more))]
            first, last = counters[0], counters[-1]
            beyond = 0.0 if more == few else (self.layers - few) / (more - few)
            self._works[known] = Work(
                round(first.peak + beyond * (last.peak - first.peak)),
                round(first.flops + beyond * (last.flops - first.flops)),
            )
        return self._works[known]

    def _transformer(self, choices: MemoryChoices, layers: int) -> WanTransformer3DModel:
        return transformer_without_data(self.folder, self.dtype, float8=choices.float8_base, layers=layers)

    def _weights(self, choices: MemoryChoices) -> int:
        """Bytes of the transformer's weights."""
        one, two = (_bytes_of(self._transformer(choices, layers)) for layers in (1, 2))
        return one + (self.layers - 1) * (two - one)

    def _lora_bytes(self, rank: int) -> int:
        """Bytes of a LoRA on all heads in the stock layout."""
        one_layer = runs.stock_lora(self._transformer(MemoryChoices(), 1), rank)
        return self.layers * sum(weight.nbytes for weight in one_layer.values())


def _of_stage(stage: str, choices: MemoryChoices) -> MemoryChoices:
    """The choices that a stage reads, all others off."""
    return MemoryChoices(**{name: getattr(choices, name) for name in _READ[stage]})


def _bytes_of(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())

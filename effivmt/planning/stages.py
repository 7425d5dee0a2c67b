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
from effivmt.planning import host, runs
from effivmt.planning.counting import META, Counter, counted
from effivmt.planning.models import (
    autoencoder_without_data,
    image_encoder_without_data,
    text_encoder_without_data,
    transformer_without_data,
)

STAGES = ("ingest", "text", "heads", "spatial", "temporal", "render")
TEXTS = 3
"""Texts of a clip with one prompt: its caption, the prompt and the negative prompt."""
FEW, MORE = 4, 8
"""Layers that are counted: from the first number to the second, and beyond, bytes and FLOPs grow evenly."""
_READ = {
    "ingest": ("tiled_decoding",),
    "text": ("text_on_host",),
    "heads": ("offloaded_blocks", "float8_base"),
    "spatial": ("spatial_checkpointing", "float8_base"),
    "temporal": ("temporal_checkpointing", "activations_on_host", "float8_base"),
    "render": ("tiled_decoding", "offloaded_blocks", "float8_base"),
}
Count = Callable[[WanTransformer3DModel], Counter]


@dataclass(frozen=True)
class Work:
    """Peak of the bytes on the GPU, FLOPs, and peak of the bytes that are copied to the host."""

    peak: int
    flops: int
    host: int = 0


@dataclass(frozen=True)
class StageCost:
    """What one stage takes: bytes on the GPU, bytes on the host beside one, bytes on the disk.

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
    image has no stage 2; the clip's own image is encoded in the stage heads, those of the videos in render.
    """

    def __init__(self, folder: Path, params: Params, experts: Sequence[Expert] = (ONLY,)) -> None:
        self.folder, self.params, self.experts = folder, params, experts
        self.tuned = len(experts) if params.backbone.experts == "all" else 1
        self.dtype: torch.dtype = getattr(torch, params.backbone.dtype)
        config = WanTransformer3DModel.load_config(folder / "transformer")
        self.layers: int = config["num_layers"]
        self.needs_image = config.get("in_channels", 16) != config.get("out_channels", 16)
        self.image_encoder = config.get("image_dim") is not None
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

    def _ingest(self, choices: MemoryChoices) -> StageCost:
        size = self.params.ingest
        frames, pixels = size.num_frames, size.height * size.width
        whole, single, decoded = self._encoding(frames), self._encoding(1), self._decoding(choices)
        latents = 4 * math.prod(self.latent_shape(self.latent_frames + frames))
        flops = whole.flops + frames * single.flops + decoded.flops
        on_host = host.pictures(frames, size.height, size.width)
        return StageCost("ingest", max(whole.peak, decoded.peak), on_host, 3 * frames * pixels + latents, flops)

    def _text(self, choices: MemoryChoices) -> StageCost:
        encoder = text_encoder_without_data(self.folder, self.dtype)
        tokens = torch.zeros(1, self.params.backbone.max_sequence_length, dtype=torch.int64, device=META)
        with torch.no_grad(), counted([encoder]) as counter:
            encoder(tokens, torch.ones_like(tokens))
        on_device, on_host = counter.peak, host.on_the_way(encoder, host.LOADED_AT_ONCE)
        if choices.text_on_host:
            on_device, on_host = 0, counter.peak
        width: int = encoder.config.d_model
        return StageCost("text", on_device, on_host, TEXTS * 4 * tokens.numel() * width, TEXTS * counter.flops)

    def _heads(self, choices: MemoryChoices) -> StageCost:
        shape = (1, *self.latent_shape(self.latent_frames))
        count = partial(runs.count_heads, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        work, levels = self._all_layers("heads", choices, count), len(self.params.heads.noise_levels)
        peak, flops, disk = work.peak, self.tuned * levels * work.flops, 0
        on_host = max(self._loading(choices), self._waiting(choices) + work.host)
        if self.needs_image:
            image = self._image(tiled=False)
            peak, on_host, flops = max(peak, image.peak), max(on_host, image.host), flops + image.flops
            disk = 4 * math.prod(shape)
        return StageCost("heads", peak, on_host, disk, flops)

    def _spatial(self, choices: MemoryChoices) -> StageCost:
        if self.params.spatial.steps == 0 or self.needs_image:
            return StageCost("spatial", 0, 0, 0, 0.0)
        channels, _, height, width = self.latent_shape(1)
        shape = (self.params.ingest.num_frames, channels, 1, height, width)
        count = partial(runs.count_spatial, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        work, own = self._all_layers("spatial", choices, count), self._lora_bytes(self.params.spatial.rank)
        on_host = max(self._loading(choices), work.host + host.saving(own))
        return self._tuned("spatial", work, self.params.spatial, on_host=on_host, disk=4 * own)

    def _temporal(self, choices: MemoryChoices) -> StageCost:
        sampling = self.params.sampling
        samples, frames = 1, self.latent_frames
        if sampling.mode == "pixel":
            samples, frames = sampling.phases, sampling.latent_frames
        shape = (samples, *self.latent_shape(frames))
        count = partial(runs.count_temporal, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        work, (looks, own) = self._all_layers("temporal", choices, count), self._adapter_bytes()
        others = (self.tuned - 1) * (looks + own)
        on_host = max(
            self._loading(choices), others + max(work.host + looks + host.saving(own), host.writing(own, looks))
        )
        return self._tuned("temporal", work, self.params.temporal, on_host=on_host, disk=5 * own + 2 * looks)

    def _tuned(self, stage: str, work: Work, params: LoraParams, *, on_host: int, disk: int) -> StageCost:
        """The cost of a tuning stage; disk: its LoRA, of stage 3 the appearance LoRA too and both joined, and a
        checkpoint of weights and two moments.
        """
        flops = params.steps * work.flops / runs.COUNTED_STEPS
        return StageCost(stage, work.peak, on_host, self.tuned * disk, self.tuned * flops)

    def _render(self, choices: MemoryChoices) -> StageCost:
        params, size, vae = self.params.render, self.params.ingest, _bytes_of(autoencoder_without_data(self.folder))
        forward, decoding = self._forward(choices), self._decoding(choices)
        transformer = transformer_without_data(self.folder, self.dtype, float8=choices.float8_base, layers=2)
        held = 0  # of the LoRAs: merged into float32 weights, they are gone
        if self.dtype != torch.float32:
            held = sum(self._adapter_bytes()) * self.dtype.itemsize // torch.float32.itemsize
        held += _bytes_of(transformer) if choices.offloaded_blocks else self._weights(choices)
        others = (len(self.experts) - 1) * held
        peak = max(forward.peak + vae, held + decoding.peak)
        passes = params.steps * (2 if params.guidance_scale > 1 else 1)
        flops = passes * forward.flops + decoding.flops
        loras, waiting = self.tuned * sum(self._adapter_bytes()), len(self.experts) * self._waiting(choices)
        originals, floats = len(self.experts) * forward.host, host.pictures(size.num_frames, size.height, size.width)
        on_host = max(waiting - self._waiting(choices) + self._loading(choices), waiting + loras + originals + floats)
        if self.needs_image:
            tiled, kept = choices.tiled_decoding, self._image_encoder_bytes()
            image, encoding = self._image(tiled=tiled), self._encoding(size.num_frames, tiled=tiled)
            peak = max(kept + max(peak, held + encoding.peak), held + image.peak)
            on_host, flops = max(on_host, image.host), flops + image.flops
        videos = len(params.seeds) * (2 if params.baseline else 1)
        return StageCost("render", others + peak, on_host, 0, videos * flops)

    def _forward(self, choices: MemoryChoices) -> Work:
        shape = (1, *self.latent_shape(self.latent_frames))
        count = partial(runs.count_forward, params=self.params, latents=shape, choices=choices, expert=self.experts[0])
        return self._all_layers("forward", replace(choices, tiled_decoding=False), count)

    def _decoding(self, choices: MemoryChoices) -> Work:
        tiled, latents = choices.tiled_decoding, (1, *self.latent_shape(self.latent_frames))
        return self._once("decoding", tiled, lambda: runs.count_decoding(self._autoencoder(tiled=tiled), latents))

    def _encoding(self, frames: int, *, tiled: bool = False) -> Work:
        video = 1, 3, frames, self.params.ingest.height, self.params.ingest.width
        count = partial(runs.count_encoding, video=video)
        return self._once(f"encoding {frames}", tiled, lambda: count(self._autoencoder(tiled=tiled)))

    def _image(self, *, tiled: bool) -> Work:
        """The image beside the noise, encoded as a video's first frame, and then read by CLIP where it is."""
        vae, encoded = autoencoder_without_data(self.folder), self._encoding(self.params.ingest.num_frames, tiled=tiled)
        if not self.image_encoder:
            return replace(encoded, host=host.on_the_way(vae))
        encoder = image_encoder_without_data(self.folder)
        read = self._once("image", False, lambda: runs.count_embedding(encoder))
        on_host = max(host.on_the_way(vae), host.on_the_way(encoder, host.LOADED_AT_ONCE))
        return Work(max(encoded.peak, _bytes_of(vae) + read.peak), encoded.flops + read.flops, on_host)

    def _image_encoder_bytes(self) -> int:
        return _bytes_of(image_encoder_without_data(self.folder)) if self.image_encoder else 0

    def _autoencoder(self, *, tiled: bool) -> AutoencoderKLWan:
        vae = autoencoder_without_data(self.folder)
        if tiled:
            vae.enable_tiling()
        return vae

    def _once(self, what: str, tiled: bool, count: Callable[[], Counter]) -> Work:
        """What a part other than the transformer takes, counted once."""
        known = what, MemoryChoices(tiled_decoding=tiled)
        if known not in self._works:
            counter = count()
            self._works[known] = Work(counter.peak, counter.flops)
        return self._works[known]

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
                round(first.host_peak + beyond * (last.host_peak - first.host_peak)),
            )
        return self._works[known]

    def _transformer(self, choices: MemoryChoices, layers: int) -> WanTransformer3DModel:
        return transformer_without_data(self.folder, self.dtype, float8=choices.float8_base, layers=layers)

    def _weights(self, choices: MemoryChoices) -> int:
        """Bytes of the transformer's weights."""
        one, two = (_bytes_of(self._transformer(choices, layers)) for layers in (1, 2))
        return one + (self.layers - 1) * (two - one)

    def _loading(self, choices: MemoryChoices) -> int:
        """Bytes of the host while a transformer is loaded: weight by weight onto a GPU, whole where its blocks go to 8
        bits or wait there. Those that wait are copied for the way to the GPU before the first are freed.
        """
        if not (choices.float8_base or choices.offloaded_blocks):
            return host.on_the_way(self._transformer(choices, 1))
        return max(self._weights(replace(choices, float8_base=False)), 2 * self._waiting(choices))

    def _waiting(self, choices: MemoryChoices) -> int:
        """Bytes of a transformer's weights that wait in the host's memory."""
        return self._weights(choices) if choices.offloaded_blocks else 0

    def _adapter_bytes(self) -> tuple[int, int]:
        """Bytes of the appearance and the motion LoRA of one transformer."""
        looks, motion = self.params.spatial, self.params.temporal
        tuned = looks.steps > 0 and not self.needs_image
        return self._lora_bytes(looks.rank) if tuned else 0, self._lora_bytes(motion.rank)

    def _lora_bytes(self, rank: int) -> int:
        """Bytes of a LoRA on all heads in the stock layout."""
        one_layer = runs.stock_lora(self._transformer(MemoryChoices(), 1), rank)
        return self.layers * sum(weight.nbytes for weight in one_layer.values())


def _of_stage(stage: str, choices: MemoryChoices) -> MemoryChoices:
    """The choices that a stage reads, all others off."""
    return MemoryChoices(**{name: getattr(choices, name) for name in _READ[stage]})


def _bytes_of(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())

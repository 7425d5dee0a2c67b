"""The true shapes of Wan 2.1 with random weights on one GPU, in ten minutes: time, peak memory and share of the card's
matmul rate of every kind of step, beside a dense step and a plain LoRA step of diffusers and peft.

1.3B at 480 x 832, 81 frames, 17 of them sampled, rank 128, bfloat16; 14B under `backbone.memory: 24`. A step that the
GPU has no memory for has a row without numbers. `--attention` and `--compile` are the params of these names. `--small`
takes small shapes in float32 on the processor, to try the script.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from effivmt.config import NATIVE, BackboneParams, Params
from effivmt.method.adapter import fused
from effivmt.method.attention import check_attention, set_attention
from effivmt.method.compiling import check_compiler, compiled_blocks
from effivmt.method.device import prepare_gpu
from effivmt.method.head_scores import attention_scores
from effivmt.method.heads import BRANCHES
from effivmt.method.low_memory import activations_on_host
from effivmt.method.memory_choices import MemoryChoices
from effivmt.params_file import load_params
from effivmt.pipeline.stages.spatial_tuning import checkpointed
from effivmt.planning.choosing import choose
from effivmt.planning.machine import gpu_gigabytes
from effivmt.planning.stages import StageCounter
from timing import Timing, Value, arguments, interleaved, machine, report, timed
from tuned_steps import plain_step, spatial_step, temporal_step
from wan_shapes import (
    SMALL,
    SMALL_TEXT,
    SMALL_VAE,
    TRANSFORMER,
    WAN_1_3B,
    WAN_14B,
    Config,
    random_autoencoder,
    random_transformer,
    weak_lora,
    write_configs,
)

GIB = 2**30


@dataclass(frozen=True)
class Kind:
    """A backbone to measure: its preset, its shape, the memory (GiB) it must fit into, and how much is measured.

    memory None: that of the GPU. alone: our steps alone.
    """

    name: str
    preset: str
    size: Config
    memory: int | None
    alone: bool


KINDS = (Kind("1.3B", "wan2.1-1.3b", WAN_1_3B, None, False), Kind("14B, memory 24", "wan2.1-14b", WAN_14B, 24, True))
SMALL_KINDS = tuple(replace(kind, name=f"small {kind.name}", size=SMALL) for kind in KINDS)


def params_of(kind: Kind, *, small: bool, attention: str = NATIVE, compiled: bool = False) -> Params:
    """The params of the kind's preset, whose tunings never end of themselves."""
    endless = ["spatial.steps=100000", "temporal.steps=100000", "spatial.save_every=1000000"]
    overrides = [*endless, "temporal.save_every=1000000", f"backbone.device={'cpu' if small else 'cuda'}"]
    overrides += [f"backbone.attention={attention}", f"backbone.compile={str(compiled).lower()}"]
    if small:
        overrides += ["backbone.dtype=float32", "backbone.max_sequence_length=32", "ingest.num_frames=17"]
        overrides += ["ingest.height=64", "ingest.width=64", "sampling.frames=9", "spatial.rank=8", "temporal.rank=8"]
    return load_params(kind.preset, overrides)


@dataclass
class Bench:
    """Measures one kind, whose configs are in `folder`, on `device`; collects its rows."""

    kind: Kind
    folder: Path
    rounds: int
    params: Params
    device: str
    rows: list[Mapping[str, Value]]

    def __post_init__(self) -> None:
        self.counter = StageCounter(self.folder, self.params)
        gigabytes = self.kind.memory or gpu_gigabytes(self.device)
        self.choices = MemoryChoices() if gigabytes is None else choose(self.counter, gigabytes)
        forbidden = self.choices.float8_base or self.choices.offloaded_blocks
        self.compile = self.params.backbone.compile and not forbidden
        rate = machine(self.device, self.params.backbone.dtype)["matmul_flops_per_second"]
        assert isinstance(rate, float)
        self.rate = rate
        shape = self.counter.latent_shape(self.counter.latent_frames)
        self.latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))

    def run(self) -> None:
        """Measures every kind of step."""
        print(f"{self.kind.name}: {self.choices.describe()}")
        backbone, float8 = self.params.backbone, self.choices.float8_base
        dtype = backbone.dtype
        transformer = random_transformer(self.folder, dtype, self.device, float8=float8)
        set_attention(transformer, backbone)
        self._tuning(transformer)
        self._forward(transformer)
        del transformer
        if not self.kind.alone:
            self._plain(random_transformer(self.folder, dtype, self.device))
        self._decoding()

    def _tuning(self, transformer: WanTransformer3DModel) -> None:
        params, looks = self._checkpointed(), {"spatial": (weak_lora(transformer, self.params.spatial.rank), 1.0)}
        cost = self.counter.cost("spatial", self.choices)
        flops, whole = cost.flops / params.spatial.steps, load_params(self.kind.preset)
        with compiled_blocks(transformer, needed=self.compile):
            step = spatial_step(transformer, params, self.latents)
            self._add("spatial step", step, flops, planned=cost.device_bytes, steps=whole.spatial.steps)
        waiting = activations_on_host(torch.device(self.device), needed=self.choices.activations_on_host)
        with fused(transformer, looks), compiled_blocks(transformer, needed=self.compile), waiting:
            cost = self.counter.cost("temporal", self.choices)
            flops = cost.flops / params.temporal.steps
            step = temporal_step(transformer, params, self.latents)
            self._add("temporal step", step, flops, planned=cost.device_bytes, steps=whole.temporal.steps)
            if not self.kind.alone:
                dense = _dense(params)
                cost = StageCounter(self.folder, dense).cost("temporal", self.choices)
                flops = cost.flops / params.temporal.steps
                step = temporal_step(transformer, dense, self.latents)
                self._add("dense temporal step", step, flops, planned=cost.device_bytes, rounds=1)

    def _plain(self, transformer: WanTransformer3DModel) -> None:
        params = self._checkpointed()
        step = plain_step(transformer, params, self.latents, frames=params.sampling.latent_frames)
        flops = self.counter.cost("temporal", self.choices).flops / params.temporal.steps
        self._add("plain LoRA step, all heads", step, flops)

    def _forward(self, transformer: WanTransformer3DModel) -> None:
        heads, device = self.params.heads, self.device
        inputs = (self.latents.to(device, transformer.dtype), torch.tensor([500.0], device=device))
        tokens, width = self.params.backbone.max_sequence_length, transformer.config["text_dim"]
        text = torch.zeros(1, tokens, width, device=device, dtype=transformer.dtype)
        cost = self.counter.cost("heads", self.choices)
        classify = partial(attention_scores, transformer, *inputs, text, band=heads.band, query_rows=heads.query_rows)
        flops = cost.flops / len(heads.noise_levels)
        self._add("head classification", timed(classify), flops, planned=cost.device_bytes, rounds=2)

        def guided_step() -> None:
            with torch.no_grad():
                for _ in range(2):  # with the prompt and with the negative prompt
                    transformer(*inputs, text, return_dict=False)

        loras = {name: (weak_lora(transformer, getattr(self.params, name).rank), 1.0) for name in BRANCHES}
        with fused(transformer, loras), compiled_blocks(transformer, needed=self.compile):
            forward, _ = self.counter.render_flops(self.choices)
            self._add("rendered step, guided", timed(guided_step), 2 * forward, rounds=2)

    def _decoding(self) -> None:
        vae, latents = random_autoencoder(self.folder, self.device), self.latents.to(self.device)
        if self.choices.tiled_decoding:
            vae.enable_tiling()
        _, flops = self.counter.render_flops(self.choices)
        with torch.no_grad():
            self._add("decoding", timed(lambda: vae.decode(latents)), flops, rounds=1)

    def _checkpointed(self) -> Params:
        """The params with the gradient checkpointing that was chosen."""
        chosen = {"spatial": self.choices.spatial_checkpointing, "temporal": self.choices.temporal_checkpointing}
        update = {stage: checkpointed(getattr(self.params, stage), needed) for stage, needed in chosen.items()}
        return self.params.model_copy(update=update)

    def _add(
        self,
        what: str,
        case: Callable[[], float],
        flops: float,
        *,
        planned: int | None = None,
        rounds: int | None = None,
        steps: int | None = None,
    ) -> None:
        """Measures a case and adds its row; steps: those of a whole tuning."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        timing: Timing | None = None
        try:
            (timing,) = interleaved({what: case}, rounds or self.rounds).values()
        except torch.OutOfMemoryError:
            what += " (out of memory)"
        print(f"{self.kind.name}, {what}: {'–' if timing is None else f'{1000 * timing.seconds:.4g} ms'}", flush=True)
        self.rows.append(
            {
                "kind": self.kind.name,
                "what": what,
                "ms": None if timing is None else 1000 * timing.seconds,
                "± ms": None if timing is None else 1000 * timing.spread,
                "minutes in all": None if timing is None or steps is None else steps * timing.seconds / 60,
                "TFLOP": flops / 1e12,
                "share of matmul rate": None if timing is None else flops / timing.seconds / self.rate,
                "peak GiB": torch.cuda.max_memory_allocated() / GIB if self.device == "cuda" else None,
                "planned GiB": None if planned is None else planned / GIB,
            }
        )


def _dense(params: Params) -> Params:
    """The params with every frame in each step of stage 3, which then needs checkpointing."""
    return params.model_copy(
        update={
            "sampling": params.sampling.model_copy(update={"mode": "dense"}),
            "temporal": params.temporal.model_copy(update={"gradient_checkpointing": True}),
        }
    )


def main() -> None:
    """Measures both kinds."""
    parser = arguments(__doc__ or "", "gpu")
    parser.add_argument("--small", action="store_true", help="small shapes on the processor")
    parser.add_argument("--attention", default=NATIVE, help="the backend of attention")
    parser.add_argument("--compile", action="store_true", help="compiles the blocks")
    asked = parser.parse_args()
    if not asked.small and not torch.cuda.is_available():
        parser.error("no GPU is visible; --small tries the script on the processor")
    torch.set_num_threads(asked.threads)
    device, dtype = ("cpu", "float32") if asked.small else ("cuda", "bfloat16")
    if not asked.small:
        prepare_gpu(torch.bfloat16)
    chosen = BackboneParams(attention=asked.attention)
    check_attention(chosen, torch.device(device), getattr(torch, dtype), TRANSFORMER["attention_head_dim"])
    if asked.compile:
        check_compiler(torch.device(device), MemoryChoices())
    start = time.perf_counter()
    rows: list[Mapping[str, Value]] = []
    with TemporaryDirectory() as temporary:
        for kind in SMALL_KINDS if asked.small else KINDS:
            vae, text = (SMALL_VAE, SMALL_TEXT) if asked.small else (None, None)
            folder = write_configs(Path(temporary) / kind.preset, kind.size, vae, text)
            params = params_of(kind, small=asked.small, attention=asked.attention, compiled=asked.compile)
            Bench(kind, folder, asked.rounds, params, device, rows).run()
    facts = machine(device, dtype) | {"attention": asked.attention, "compile": str(asked.compile).lower()}
    report(asked.out, f"Wan 2.1 on {facts['device']}", rows, facts)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

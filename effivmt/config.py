"""The parameters: one frozen section per stage, checked once at the edge; each stage hashes only the sections it reads.

The defaults are the preset `tiny`, sized for the embedded backbone on two CPU cores; `params.yaml` in the repository
spells them out. Other presets are the files of `effivmt/presets`.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from effivmt.embedded import CLIP_TINY, WAN_TINY


def _packs_into_latent_frames(value: int) -> int:
    if value % 4 != 1:
        raise ValueError(f"{value} is not of the form 4k+1; the nearest below is {value - (value - 1) % 4}")
    return value


NATIVE = "native"
"""Torch's own attention, as diffusers names it."""
Positive = Annotated[int, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
"""AdamW moves every weight by about this much a step; the embedded backbone diverges far below 1."""
FlowShift = Annotated[float, Field(gt=0, le=100)]
Strength = Annotated[float, Field(ge=0, le=4)]
"""How much of a LoRA is added to the weights; 1 is what was tuned."""
GuidanceScale = Annotated[float, Field(ge=1, le=100)]
FrameCount = Annotated[int, Field(ge=5), AfterValidator(_packs_into_latent_frames)]
PixelSize = Annotated[int, Field(ge=16)]
"""A multiple of what the backbone packs into a token, which is checked when the backbone is found."""


class Section(BaseModel):
    """A frozen section of the parameters that refuses unknown fields, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later: ClassVar[tuple[str, ...]] = ()
    """Fields that came later. Dumps leave them out where they have their default, so that keys and adapters that were
    made before stay the same."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = serialize(self)
        for name in self.later:
            if getattr(self, name) == type(self).model_fields[name].default:
                tree.pop(name, None)
        return tree


class BackboneParams(Section):
    """The frozen video model."""

    path: str = WAN_TINY
    """A `WanPipeline` folder or hub id; `wan-tiny` is the embedded backbone."""
    revision: str | None = None
    """Commit, branch or tag of a hub id; null: its main branch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the transformer; the VAE runs in float32."""
    device: str = "auto"
    """`auto` takes the first GPU, else the processor."""
    memory: Literal["auto", 80, 48, 24, 16, 12] = "auto"
    """GiB of GPU memory that every stage must fit into; `auto`: the GPU's own. What saves memory is chosen where it is
    needed (docs/memory.md); on the processor `auto` chooses nothing."""
    max_sequence_length: Annotated[int, Field(gt=0, le=512)] = 32
    """Text tokens a prompt is padded to; Wan was trained with 512."""
    attention: str = NATIVE
    """A backend of diffusers' attention dispatcher: `native` (torch), `flash`, `sage` and so on. Where gradients are
    computed, one that has no backward pass (those of SageAttention) gives way to `native`."""
    compile: bool = False
    """Compiles the transformer's blocks by `torch.compile` for tuning and rendering; takes a compiler for C++."""
    allow_tf32: bool = False
    """Multiplies float32 matrices on a GPU in TF32, faster and to 10 bits of fraction; beside bfloat16 weights that is
    always so."""
    experts: Literal["all", "high_noise"] = "all"
    """Which transformers of a backbone with two (Wan 2.2 A14B) get an adapter: all, or the high-noise one alone, which
    decides the motion."""

    @property
    def differentiable_attention(self) -> str:
        """The backend where gradients are computed."""
        return NATIVE if self.attention.lstrip("_").startswith("sage") else self.attention


class IngestParams(Section):
    """How a video file becomes a clip."""

    fps: Annotated[float, Field(gt=0, le=120)] = 16.0
    num_frames: FrameCount = 81
    """T, of the form 4k+1: Wan packs 4 pixel frames into a latent frame, the first stands alone."""
    height: PixelSize = 64
    width: PixelSize = 64


class SamplingParams(Section):
    """Which frames the temporal stage sees (paper: 17 of 81, sampled before the VAE)."""

    mode: Literal["anchored", "latent", "pixel", "dense"] = "anchored"
    """`anchored`: encode the whole clip; each sample of a step has the first and the last latent frame and others drawn
    at random. `latent`: encode the whole clip; latent frames at even distances. `pixel`: frames at even distances,
    encoded after sampling (paper). `dense`: every frame."""
    frames: FrameCount = 17
    """F_samp in pixel frames, 4k+1; `anchored` and `latent` keep as many latent frames as F_samp pixel frames give."""
    phases: Annotated[int, Field(ge=1, le=16)] = 4
    """How many offsets of the grid a step of `latent` or `pixel` draws from, so that every frame is seen."""

    @property
    def latent_frames(self) -> int:
        """The latent frames that F_samp pixel frames give."""
        return (self.frames - 1) // 4 + 1

    @model_validator(mode="after")
    def _anchors_leave_room(self) -> "SamplingParams":
        if self.mode == "anchored" and self.latent_frames < 3:
            raise ValueError(
                f"mode is anchored but frames is {self.frames}, which gives 2 latent frames, the first and the last; "
                "sample at least 9"
            )
        return self


class HeadsParams(Section):
    """Head classification (paper, section 3.2)."""

    later: ClassVar[tuple[str, ...]] = ("criterion",)
    criterion: Literal["attention_mass", "output_error"] = "attention_mass"
    """A head's score: attention mass (paper), or how well a mask keeps the head's output (Sparse VideoGen)."""
    scope: Literal["clip", "backbone"] = "clip"
    """`backbone`: one head map, averaged over `scope_clips`, serves every clip."""
    scope_clips: tuple[str, ...] = ()
    """Video files that `scope: backbone` averages over, relative to the params file."""
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 4.0
    """A head is temporal iff S_spatial < alpha * S_temporal; not read with the criterion output_error. The paper has
    1.25; on the embedded backbone 1.25 and 4 are nearly alike (docs/benchmark.md)."""
    noise_levels: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.5, 0.7, 0.9)
    """The sigmas whose scores are averaged, one forward each."""
    band: Annotated[float, Field(gt=0, le=1)] | None = None
    """Width of each temporal diagonal as a share of the tokens of a latent frame; null: 2 / F (the authors' code)."""
    query_rows: Positive = 256
    """Query tokens whose attention rows are computed; all of them where the clip has fewer."""
    split: Literal["classified", "random", "swapped", "none"] = "classified"
    """Which heads the branches get. `random` (as many in each layer) and `swapped` are controls; `none`: no decoupling,
    both branches on all heads."""


class LoraParams(Section):
    """What both tuning stages share."""

    later: ClassVar[tuple[str, ...]] = ("max_grad_norm",)
    rank: Positive = 16
    steps: Positive
    batch: Positive = 4
    learning_rate: LearningRate
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients of a greater norm, over all weights of the LoRA, are scaled down to it; null: never."""
    flow_shift: FlowShift = 3.0
    """Noise levels are drawn as sigma = shift u / (1 + (shift - 1) u), u uniform."""
    gradient_checkpointing: bool = False
    """true: always; false: only where `backbone.memory` needs it. The result is the same."""
    save_every: Positive = 100
    """Steps between checkpoints; a killed run resumes from the last one."""


class SpatialParams(LoraParams):
    """Stage 2: appearance LoRA on the spatial branches, single frames."""

    steps: Annotated[int, Field(ge=0)] = 100
    """0 leaves stage 2 out: the adapter has no appearance LoRA."""
    batch: Positive = 8
    learning_rate: LearningRate = 3e-3


class TemporalParams(LoraParams):
    """Stage 3: motion LoRA on the temporal branches, sparse frames, adaptive RoPE."""

    later: ClassVar[tuple[str, ...]] = (*LoraParams.later, "first_frame")
    rank: Positive = 32
    steps: Positive = 600
    learning_rate: LearningRate = 4e-3
    flow_shift: FlowShift = 15.0
    """Motion is decided at high noise levels; at low ones the noised clip shows where everything is."""
    rope: Literal["none", "paper", "aligned"] = "aligned"
    motion_weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    """lambda of L = L_denoise + lambda * L_motion."""
    first_frame: bool = False
    """Where videos begin with images: true gives the clip's own first frame to stages 1 and 3 and leaves stage 2 out;
    false tunes as for prompts alone. On a backbone that needs an image it is always given."""


class RenderParams(Section):
    """Fused inference."""

    steps: Positive = 20
    guidance_scale: GuidanceScale = 4.0
    guidance_scale_2: GuidanceScale | None = None
    """Of the low-noise transformer of a backbone with two; null: the same."""
    flow_shift: FlowShift = 5.0
    negative_prompt: str = ""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    appearance_strength: Strength = 0.5
    motion_strength: Strength = 1.0
    motion_boundary: Annotated[float, Field(ge=0, le=0.99)] = 0.8
    """The noise level, sigma, down to which the motion LoRA takes part in sampling; 0: in every step. `boundary_ratio`
    is such a level for the high-noise transformer of Wan 2.2. Motion is decided at high levels, looks below."""
    baseline: bool = True
    """Also render each prompt and seed without the adapter, for comparison."""


class EvaluateParams(Section):
    """Metrics of the rendered videos."""

    scorer: str = CLIP_TINY
    """A transformers `CLIPModel` folder or hub id; `clip-tiny` is the embedded one, which knows wan-tiny's clips alone.
    Where it cannot be had, the metrics of CLIP are left out."""
    cotracker: str = ""
    """A CoTracker3 checkpoint as safetensors, by which points are tracked; empty: Lucas-Kanade, with no download."""

    @property
    def tracker(self) -> Path | None:
        """The checkpoint's file; None: Lucas-Kanade."""
        return Path(self.cotracker) if self.cotracker else None


class Params(Section):
    """All sections of a params file."""

    seed: int = 0
    preview: bool = Field(default=False, exclude=True)
    """Shows videos of the first prompt while stage 3 is still to come or at work. No result depends on it, so neither
    keys nor records hold it."""
    backbone: BackboneParams = BackboneParams()
    ingest: IngestParams = IngestParams()
    sampling: SamplingParams = SamplingParams()
    heads: HeadsParams = HeadsParams()
    spatial: SpatialParams = SpatialParams()
    temporal: TemporalParams = TemporalParams()
    render: RenderParams = RenderParams()
    evaluate: EvaluateParams = EvaluateParams()

    @model_validator(mode="after")
    def _sampling_fits_the_clip(self) -> "Params":
        if self.sampling.frames > self.ingest.num_frames:
            raise ValueError(
                f"sampling.frames is {self.sampling.frames} but ingest.num_frames is {self.ingest.num_frames}; "
                "sample at most all frames"
            )
        return self

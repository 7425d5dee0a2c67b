"""params.yaml: one frozen section a stage, checked once at the edge; each stage hashes only the sections it reads."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from effivmt.errors import ParamsError


def _packs_into_latent_frames(value: int) -> int:
    if value % 4 != 1:
        raise ValueError(f"{value} is not of the form 4k+1; the nearest below is {value - (value - 1) % 4}")
    return value


def _divides_into_tokens(value: int) -> int:
    if value % 16:
        raise ValueError(f"{value} is not a multiple of 16; the nearest below is {value // 16 * 16}")
    return value


Positive = Annotated[int, Field(gt=0)]
FrameCount = Annotated[int, Field(ge=5), AfterValidator(_packs_into_latent_frames)]
PixelSize = Annotated[int, Field(ge=16), AfterValidator(_divides_into_tokens)]


class Section(BaseModel):
    """A frozen section of the parameters that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneParams(Section):
    """The frozen video model: any `WanPipeline` folder or hub id."""

    path: str = "data/wan-tiny"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the transformer; the VAE runs in float32."""
    device: str = "auto"
    """`auto` takes the first GPU, else the processor."""
    max_sequence_length: Annotated[int, Field(gt=0, le=512)] = 32
    """Text tokens a prompt is padded to; Wan 2.1 was trained with 512."""


class IngestParams(Section):
    """How a video file becomes a clip."""

    fps: Annotated[float, Field(gt=0, le=120)] = 8.0
    num_frames: FrameCount = 33
    """T, of the form 4k+1: Wan packs 4 pixel frames into a latent frame, the first stands alone."""
    height: PixelSize = 64
    width: PixelSize = 64


class SamplingParams(Section):
    """Which frames the temporal stage sees (paper: 17 of 81, sampled before the VAE)."""

    mode: Literal["pixel", "latent", "dense"] = "latent"
    """`pixel`: sample, then encode (paper). `latent`: encode densely, then sample. `dense`: no sampling."""
    frames: FrameCount = 17
    """F_samp in pixel frames, 4k+1; `latent` mode keeps as many latent frames as F_samp pixel frames would give."""
    phases: Annotated[int, Field(ge=1, le=16)] = 4
    """How many offsets of the sampling grid a step draws from, so that every frame is seen."""


class HeadsParams(Section):
    """Head classification (paper, section 3.2)."""

    scope: Literal["clip", "backbone"] = "clip"
    """`backbone`: one head map, averaged over `scope_clips`, serves every clip."""
    scope_clips: tuple[str, ...] = ()
    """Video files that `scope: backbone` averages over, relative to the params file."""
    alpha: Annotated[float, Field(gt=0)] = 1.25
    """A head is temporal iff S_spatial < alpha * S_temporal."""
    noise_levels: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.5, 0.7, 0.9)
    """The sigmas whose scores are averaged, one forward each."""
    band: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Width of each temporal diagonal as a share of the tokens of a latent frame (the authors' 128 of 1560)."""
    query_rows: Positive = 256
    """Query tokens whose attention rows are computed; all of them where the clip has fewer."""
    split: Literal["classified", "random", "swapped", "none"] = "classified"
    """Which heads the branches get. `random` (as many in each layer) and `swapped` are controls; `none`: no decoupling,
    both branches on all heads."""


class LoraParams(Section):
    """What both tuning stages share."""

    rank: Positive = 16
    steps: Positive = 300
    batch: Positive = 4
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    flow_shift: Annotated[float, Field(gt=0)] = 3.0
    """Noise levels are drawn as sigma = shift u / (1 + (shift - 1) u), u uniform."""
    gradient_checkpointing: bool = False
    save_every: Positive = 100
    """Steps between checkpoints; a killed run goes on from the last one."""


class SpatialParams(LoraParams):
    """Stage 2: appearance LoRA on the spatial branches, single frames."""

    steps: Annotated[int, Field(ge=0)] = 300
    """0 leaves stage 2 out: the adapter has no appearance LoRA."""


class TemporalParams(LoraParams):
    """Stage 3: motion LoRA on the temporal branches, sparse frames, adaptive RoPE."""

    rope: Literal["none", "paper", "aligned"] = "aligned"
    motion_weight: Annotated[float, Field(ge=0)] = 1.0
    """lambda of L = L_denoise + lambda * L_motion."""


class RenderParams(Section):
    """Fused inference."""

    steps: Positive = 20
    guidance_scale: Annotated[float, Field(ge=1)] = 4.0
    flow_shift: Annotated[float, Field(gt=0)] = 3.0
    negative_prompt: str = ""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    appearance_strength: float = 1.0
    motion_strength: float = 1.0
    baseline: bool = True
    """Also render each prompt and seed without the adapter, as the yardstick of the metrics."""


class EvaluateParams(Section):
    """Metrics of the rendered videos."""

    scorer: str = "data/clip-tiny"
    """A transformers `CLIPModel` folder."""
    cotracker: str = ""
    """A CoTracker3 checkpoint as safetensors, by which points are tracked; empty: Lucas-Kanade, with no download."""

    @property
    def tracker(self) -> Path | None:
        """The checkpoint's file; None: Lucas-Kanade."""
        return Path(self.cotracker) if self.cotracker else None


class Params(Section):
    """All sections of a params file."""

    seed: int = 0
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


def load_params(path: Path, overrides: tuple[str, ...] = ()) -> Params:
    """Reads a params file and applies `section.key=value` overrides (values are YAML).

    Relative paths of a folder or file that exists are taken relative to the params file. Raises ParamsError, naming the
    field, when the file or an override is wrong.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ParamsError(f"params file {path} cannot be read ({error.strerror}); pass --params FILE") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise ParamsError(f"params file {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ParamsError(f"params file {path} holds a {type(tree).__name__}; expected sections such as `temporal:`")
    for override in overrides:
        set_value(tree, override)
    try:
        return _resolve_paths(Params.model_validate(tree), path.resolve().parent)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'params'}: {e['msg']}" for e in error.errors())
        raise ParamsError(f"params are wrong: {faults} (file {path})") from error


def set_value(tree: dict[str, Any], override: str) -> None:
    """Sets what `section.key=value` (a YAML value) says in a tree of sections; ParamsError where it says nothing."""
    name, separator, text = override.partition("=")
    *sections, field = name.strip().split(".")
    if not separator or not field or len(sections) > 1:
        raise ParamsError(f"--set {override!r} is not of the form section.key=value (such as temporal.rope=paper)")
    for section in sections:
        values = tree.get(section)
        if values is not None and not isinstance(values, dict):
            raise ParamsError(f"--set {override!r}: {section} is not a section")
        copied = dict(values or {})  # YAML aliases share one mapping
        tree[section] = copied
        tree = copied
    try:
        tree[field] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ParamsError(f"--set {override!r}: the value is not valid YAML") from error


def _resolve_paths(params: Params, root: Path) -> Params:
    def resolve(name: str) -> str:
        return str(root / name) if (root / name).exists() else name

    return params.model_copy(
        update={
            "backbone": params.backbone.model_copy(update={"path": resolve(params.backbone.path)}),
            "evaluate": params.evaluate.model_copy(
                update={name: resolve(path) for name, path in params.evaluate.model_dump().items() if path}
            ),
            "heads": params.heads.model_copy(
                update={"scope_clips": tuple(resolve(clip) for clip in params.heads.scope_clips)}
            ),
        }
    )

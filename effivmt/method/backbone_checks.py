"""Checks of a backbone's folder by its small files alone: kind, configs and scheduler, before any weights are fetched.

Every ValueError says what is wrong ("has a second transformer, ...") and goes on where the caller has named the folder.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effivmt.method.adapter_manifest import PipelineSettings
from effivmt.method.experts import Expert, experts_of
from effivmt.untrusted import check_sizes, read_json_object

COMPONENTS = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")
"""The parts of every backbone."""
SECOND = "transformer_2"
"""The low-noise transformer of one that has two, such as Wan 2.2 A14B."""
IMAGE_PARTS = ("image_encoder", "image_processor")
"""The parts of one that reads an image by CLIP too, as Wan 2.1 I2V does."""
IMAGE_TEXT_TOKENS = 512
"""Text tokens of a transformer that reads an image by CLIP; diffusers takes all tokens before these for the image's."""
FIRST_FRAME = "_first_frame"
"""Key of model_index.json: whether the transformer was trained with a clean first latent frame too, at timestep 0.

diffusers ignores keys that begin so.
"""
TRAIN_TIMESTEPS = 1000
"""Wan's timestep is 1000 times the noise level."""
_EXPECTED = "expected a WanPipeline of Wan 2.1, Wan 2.2 A14B or TI2V-5B, or a WanImageToVideoPipeline of these"
IMAGE_TO_VIDEO = "WanImageToVideoPipeline"
_CLASSES = {"transformer": "WanTransformer3DModel", SECOND: "WanTransformer3DModel", "vae": "AutoencoderKLWan"}


@dataclass(frozen=True)
class BackboneShape:
    """What a run has to know of a backbone before it loads one.

    pixel_step: height and width in pixels are multiples of these; scheduler: the class of the folder's scheduler;
    boundary: the noise level, in (0, 1), from which on the first of two transformers samples, None where there is one;
    expand_timesteps: whether a transformer is given a timestep for each token; first_frame: whether a video's first
    frame can be given clean; needs_image: whether an image stands beside the noise, always; image_encoder: whether
    CLIP reads that image too.
    """

    pixel_step: tuple[int, int]
    scheduler: str
    boundary: float | None = None
    expand_timesteps: bool = False
    first_frame: bool = False
    needs_image: bool = False
    image_encoder: bool = False

    @property
    def experts(self) -> tuple[Expert, ...]:
        """The transformers, in the order of sampling."""
        return experts_of(self.boundary, expand_timesteps=self.expand_timesteps)

    @property
    def settings(self) -> PipelineSettings:
        """How the pipeline differs from that of Wan 2.1; empty where it does not."""
        settings: PipelineSettings = {}
        if self.boundary is not None:
            settings["boundary_ratio"] = self.boundary
        if self.expand_timesteps:
            settings["expand_timesteps"] = True
        if self.needs_image:
            settings["image_to_video"] = True
        return settings

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of the backbone; a second transformer is the last."""
        image, second = IMAGE_PARTS if self.image_encoder else (), () if self.boundary is None else (SECOND,)
        return (*COMPONENTS, *image, *second)


def check_configs(folder: Path) -> BackboneShape:
    """The shape of a folder's backbone; ValueError where this method cannot work with it."""
    index = _check_kind(folder)
    boundary, expand_timesteps = _boundary(index), _flag(index, "expand_timesteps")
    needs_image = index["_class_name"] == IMAGE_TO_VIDEO and not expand_timesteps
    transformers = ("transformer",) if boundary is None else ("transformer", SECOND)
    parts = [name for name in COMPONENTS if name not in ("tokenizer", "transformer")]
    _check_folders(folder, (*COMPONENTS, *transformers))
    configs = {name: _config(folder, name) for name in (*parts, *transformers)}
    _check_classes(configs)
    for name in transformers:
        _check_channels(name, configs, needs_image=needs_image)
    image_encoder = _reads_image(folder, configs, transformers, needs_image=needs_image)
    steps = {name: _pixel_step(name, configs, expand_timesteps=expand_timesteps) for name in transformers}
    if len(set(steps.values())) > 1:
        raise ValueError(
            f"has transformers whose tokens differ: {', '.join(f'{name} {step}' for name, step in steps.items())} "
            "pixels; copy the folder again"
        )
    return BackboneShape(
        steps["transformer"],
        _check_scheduler(configs["scheduler"]),
        boundary,
        expand_timesteps,
        first_frame=expand_timesteps or (_flag(index, FIRST_FRAME) and not needs_image),
        needs_image=needs_image,
        image_encoder=image_encoder,
    )


def _check_kind(folder: Path) -> dict[str, Any]:
    """model_index.json, which says what kind of pipeline the folder holds."""
    try:
        index = read_json_object(folder / "model_index.json")
    except (OSError, ValueError) as error:
        raise ValueError("has no readable model_index.json; expected a WanPipeline folder") from error
    kind = f"{index.get('_class_name')!s:.40}"
    if kind == "WanPipeline" and index.get("image_encoder") not in (None, [None, None]):
        raise ValueError(f"is a {kind} with an image_encoder, which a {IMAGE_TO_VIDEO} has; {_EXPECTED}")
    if kind not in ("WanPipeline", IMAGE_TO_VIDEO):
        raise ValueError(f"is a {kind}; {_EXPECTED}")
    return index


def _boundary(index: Mapping[str, Any]) -> float | None:
    """`boundary_ratio` of a pipeline with two transformers, None for one; ValueError where it has one of the two."""
    boundary, has_second = index.get("boundary_ratio"), index.get(SECOND) not in (None, [None, None])
    if not has_second and boundary is None:
        return None
    if not has_second:
        raise ValueError(
            f"has boundary_ratio {boundary!r:.20} but no second transformer ({SECOND}), for which it is; {_EXPECTED}"
        )
    if boundary is None:
        raise ValueError(f"has a second transformer but no boundary_ratio to say where it samples; {_EXPECTED}")
    if not isinstance(boundary, float) or not 0 < boundary < 1:
        raise ValueError(f"has boundary_ratio {boundary!r:.20}; expected a noise level between 0 and 1, such as 0.875")
    return boundary


def _flag(index: Mapping[str, Any], name: str) -> bool:
    if not isinstance(value := index.get(name) or False, bool):
        raise ValueError(f"has {name} {value!r:.20}; expected true or false")
    return value


def _reads_image(
    folder: Path, configs: Mapping[str, Mapping[str, Any]], transformers: Iterable[str], *, needs_image: bool
) -> bool:
    """Whether the transformers read the embedding of an image, which the folder then has the encoder for."""
    widths = {name: (configs[name].get("image_dim"), configs[name].get("added_kv_proj_dim")) for name in transformers}
    if all(width == (None, None) for width in widths.values()):
        return False
    if not needs_image:
        name = next(name for name, width in widths.items() if width != (None, None))
        raise ValueError(f"has a {name} that expects an image (image_dim, added_kv_proj_dim); {_EXPECTED}")
    _check_folders(folder, IMAGE_PARTS)
    config = _config(folder, "image_encoder")
    if (kind := _config(folder, "image_processor").get("image_processor_type")) is None:
        raise ValueError("has an image_processor without image_processor_type; copy the folder again")
    if not isinstance(kind, str) or not kind.startswith("CLIPImageProcessor"):
        raise ValueError(f"has an image_processor of class {kind!s:.40}, expected CLIPImageProcessor; {_EXPECTED}")
    if config.get("model_type") != "clip_vision_model":
        raise ValueError(
            f"has an image_encoder of type {config.get('model_type')!s:.40}, expected a clip_vision_model; {_EXPECTED}"
        )
    given = config.get("hidden_size", 768)
    for name, (taken, added) in widths.items():
        if taken != given or added is None:
            raise ValueError(
                f"has a {name} for images of {taken!r:.20} channels (image_dim), but its image encoder gives "
                f"{given!r:.20} (hidden_size); copy the folder again"
            )
    return True


def _check_folders(folder: Path, components: Iterable[str]) -> None:
    if missing := [name for name in dict.fromkeys(components) if not (folder / name).is_dir()]:
        raise ValueError(f"lacks {', '.join(missing)}; fetch or copy the folder again")


def _config(folder: Path, name: str) -> dict[str, Any]:
    file = {"scheduler": "scheduler_config.json", "image_processor": "preprocessor_config.json"}.get(
        name, "config.json"
    )
    try:
        config = read_json_object(folder / name / file)
        check_sizes(config)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"has a {name} that cannot be loaded ({' '.join(str(error).split())[:300]}); expected a WanPipeline "
            "folder: copy it again"
        ) from error
    return config


def _check_classes(configs: Mapping[str, Mapping[str, Any]]) -> None:
    for name, expected in _CLASSES.items():
        if name not in configs:
            continue
        if (found := configs[name].get("_class_name", expected)) != expected:
            raise ValueError(f"has a {name} of class {found!s:.40}, expected {expected}; {_EXPECTED}")


def _check_channels(name: str, configs: Mapping[str, Mapping[str, Any]], *, needs_image: bool) -> None:
    """Checks that a transformer fits the autoencoder and the text encoder."""
    transformer, vae = configs[name], configs["vae"]
    channels = vae.get("z_dim", 16)
    taken, given = transformer.get("in_channels", 16), transformer.get("out_channels", 16)
    if needs_image:
        if not (given == channels and isinstance(channels, int) and taken == 2 * channels + 4):
            raise ValueError(
                f"is a {IMAGE_TO_VIDEO} but has a {name} that takes {taken!r:.20} channels (in_channels) and gives "
                f"{given!r:.20} (out_channels); its autoencoder has {channels!r:.20} (z_dim), and in_channels must be "
                "twice that and 4: copy the folder again"
            )
    elif not taken == given == channels:
        more = " and expects an image or a video beside the noise" if taken != given else ""
        raise ValueError(
            f"has a {name} that takes {taken!r:.20} channels (in_channels) and gives {given!r:.20} (out_channels)"
            f"{more}; its autoencoder has {channels!r:.20} (z_dim), and all three must be equal: {_EXPECTED}"
        )
    for key in ("latents_mean", "latents_std"):
        if key in vae and (not isinstance(vae[key], list) or len(vae[key]) != channels):
            raise ValueError(f"has an autoencoder whose {key} has not z_dim {channels!r:.20} numbers; copy it again")
    text, width = transformer.get("text_dim", 4096), configs["text_encoder"].get("d_model", 512)
    if text != width:
        raise ValueError(
            f"has a {name} for texts of {text!r:.20} channels (text_dim), but its text encoder gives "
            f"{width!r:.20} (d_model); copy the folder again"
        )


def _pixel_step(name: str, configs: Mapping[str, Mapping[str, Any]], *, expand_timesteps: bool) -> tuple[int, int]:
    """Pixels in height and width of one token: the autoencoder's scale times the patch of a transformer."""
    transformer, vae = configs[name], configs["vae"]
    match transformer.get("patch_size", [1, 2, 2]), vae.get("patch_size") or 1:
        case [1, int(height), int(width)], int(packed) if height > 0 and width > 0 and packed > 0:
            pass
        case patch, packed:
            raise ValueError(
                f"has patch_size {patch!s:.40} ({name}) and {packed!s:.20} (autoencoder); expected a patch of one "
                "latent frame, and whole numbers"
            )
    if expand_timesteps and (height, width) != (2, 2):  # the stock pipelines take every second row and column
        raise ValueError(f"has expand_timesteps but a patch of {height} x {width} ({name}); expected 2 x 2")
    levels, packs_time = vae.get("dim_mult", [1, 2, 4, 4]), vae.get("temperal_downsample", [False, True, True])
    if not isinstance(levels, list) or not isinstance(packs_time, list) or not levels:
        raise ValueError("has an autoencoder whose dim_mult or temperal_downsample is no list; copy the folder again")
    scales = {"scale_factor_spatial": (2 ** (len(levels) - 1) * packed, 8)}
    scales["scale_factor_temporal"] = (2 ** sum(bool(packs) for packs in packs_time), 4)
    for name, (scale, default) in scales.items():
        if (said := vae.get(name, default)) != scale:
            raise ValueError(f"has an autoencoder that says {name} {said!r:.20} but scales by {scale}; copy it again")
    if scales["scale_factor_temporal"][0] != 4:
        raise ValueError(
            f"has an autoencoder that packs {scales['scale_factor_temporal'][0]} frames into a latent frame, expected 4"
        )
    scale = scales["scale_factor_spatial"][0]
    return scale * height, scale * width


def _check_scheduler(config: Mapping[str, Any]) -> str:
    """The class of a scheduler; ValueError unless it is for a flow model of 1000 timesteps."""
    kind, predicted = f"{config.get('_class_name')!s:.60}", config.get("prediction_type")
    if not kind.startswith("FlowMatch") and predicted != "flow_prediction":
        raise ValueError(
            f"has a {kind} with prediction_type {predicted!s:.40}; expected a scheduler of a flow model, such as Wan's "
            "UniPCMultistepScheduler with prediction_type flow_prediction"
        )
    if (timesteps := config.get("num_train_timesteps", TRAIN_TIMESTEPS)) != TRAIN_TIMESTEPS:
        raise ValueError(f"has a {kind} of {timesteps!r:.20} timesteps; expected {TRAIN_TIMESTEPS}, as Wan has")
    return kind

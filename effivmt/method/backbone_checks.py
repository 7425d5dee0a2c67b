"""Checks of a WanPipeline folder by its small files alone: kind, configs and scheduler, before any weights are fetched.

Every ValueError says what is wrong ("has a second transformer, ...") and goes on where the caller has named the folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effivmt.untrusted import check_sizes, read_json_object

COMPONENTS = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")
TRAIN_TIMESTEPS = 1000
"""Wan's timestep is 1000 times the noise level."""
_EXPECTED = "expected a Wan-2.1 text-to-video WanPipeline with one transformer"
_CLASSES = {"transformer": "WanTransformer3DModel", "vae": "AutoencoderKLWan"}


@dataclass(frozen=True)
class BackboneShape:
    """What a run has to know of a backbone before it loads one.

    pixel_step: height and width in pixels are multiples of these; scheduler: the class of the folder's scheduler.
    """

    pixel_step: tuple[int, int]
    scheduler: str


def check_configs(folder: Path) -> BackboneShape:
    """The shape of a folder's backbone; ValueError where this method cannot work with it."""
    _check_kind(folder)
    configs = {name: _config(folder, name) for name in COMPONENTS if name != "tokenizer"}
    _check_classes(configs)
    _check_channels(configs)
    step = _pixel_step(configs["transformer"], configs["vae"])
    return BackboneShape(step, _check_scheduler(configs["scheduler"]))


def _check_kind(folder: Path) -> None:
    try:
        index = read_json_object(folder / "model_index.json")
    except (OSError, ValueError) as error:
        raise ValueError("has no readable model_index.json; expected a WanPipeline folder") from error
    kind = f"{index.get('_class_name')!s:.40}"
    if "ImageToVideo" in kind or index.get("image_encoder") not in (None, [None, None]):
        raise ValueError(f"is a {kind} and expects an image; {_EXPECTED}")
    if kind != "WanPipeline":
        raise ValueError(f"is a {kind}; {_EXPECTED}")
    if index.get("transformer_2") not in (None, [None, None]):
        raise ValueError(f"has a second transformer, as Wan-2.2 A14B; {_EXPECTED}")
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}; fetch or copy the folder again")


def _config(folder: Path, name: str) -> dict[str, Any]:
    file = "scheduler_config.json" if name == "scheduler" else "config.json"
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
        if (found := configs[name].get("_class_name", expected)) != expected:
            raise ValueError(f"has a {name} of class {found!s:.40}, expected {expected}; {_EXPECTED}")
    transformer = configs["transformer"]
    if transformer.get("image_dim") is not None or transformer.get("added_kv_proj_dim") is not None:
        raise ValueError(f"has a transformer that expects an image (image_dim, added_kv_proj_dim); {_EXPECTED}")


def _check_channels(configs: Mapping[str, Mapping[str, Any]]) -> None:
    transformer, vae = configs["transformer"], configs["vae"]
    channels = vae.get("z_dim", 16)
    taken, given = transformer.get("in_channels", 16), transformer.get("out_channels", 16)
    if not taken == given == channels:
        more = " and expects an image or a video beside the noise" if taken != given else ""
        raise ValueError(
            f"has a transformer that takes {taken!r:.20} channels (in_channels) and gives {given!r:.20} (out_channels)"
            f"{more}; its autoencoder has {channels!r:.20} (z_dim), and all three must be equal: {_EXPECTED}"
        )
    for name in ("latents_mean", "latents_std"):
        if name in vae and (not isinstance(vae[name], list) or len(vae[name]) != channels):
            raise ValueError(f"has an autoencoder whose {name} has not z_dim {channels!r:.20} numbers; copy it again")
    text, width = transformer.get("text_dim", 4096), configs["text_encoder"].get("d_model", 512)
    if text != width:
        raise ValueError(
            f"has a transformer for texts of {text!r:.20} channels (text_dim), but its text encoder gives "
            f"{width!r:.20} (d_model); copy the folder again"
        )


def _pixel_step(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels in height and width of one token: the autoencoder's scale times the transformer's patch."""
    match transformer.get("patch_size", [1, 2, 2]), vae.get("patch_size") or 1:
        case [1, int(height), int(width)], int(packed) if height > 0 and width > 0 and packed > 0:
            pass
        case patch, packed:
            raise ValueError(
                f"has patch_size {patch!s:.40} (transformer) and {packed!s:.20} (autoencoder); expected a patch of one "
                "latent frame, and whole numbers"
            )
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

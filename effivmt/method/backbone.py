"""The frozen video model: any folder or hub id of a Wan pipeline, its parts loaded when needed, released when not."""

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from PIL import Image
from transformers import AutoTokenizer, CLIPVisionModel, UMT5EncoderModel

from effivmt.config import BackboneParams
from effivmt.errors import BackboneError
from effivmt.method.attention import check_attention, set_attention
from effivmt.method.backbone_checks import TRAIN_TIMESTEPS
from effivmt.method.backbone_folder import BackboneFolder, find_backbone
from effivmt.method.compiling import check_compiler
from effivmt.method.device import pick_device, prepare_gpu
from effivmt.method.experts import Expert
from effivmt.method.low_memory import offload_blocks, store_in_float8
from effivmt.method.memory_choices import MemoryChoices
from effivmt.method.prediction import FirstFrame

if TYPE_CHECKING:
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor

FLOW: dict[str, Any] = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "num_train_timesteps": TRAIN_TIMESTEPS,
}
"""Wan's settings of UniPC, with which every backbone samples: the noise levels are those that tuning draws."""


class Backbone:
    """The parts of one backbone in one process; each is loaded once and kept until `keep` releases it.

    `digest` identifies the weights and configs of all parts (a model card beside them does not count). Making one loads
    nothing and raises ParamsError where this machine cannot do what the params ask for. Loading a part raises
    BackboneError where a file is damaged, or a weight is missing or of no use to the model.
    """

    def __init__(
        self, params: BackboneParams, found: BackboneFolder | None = None, memory: MemoryChoices | None = None
    ) -> None:
        """found: the params' folder, where it was found before; None finds it, fetching a hub id. memory: what is done
        to fit into a GPU; None: nothing.
        """
        self.memory = memory or MemoryChoices()
        self.found = found or find_backbone(params)
        self.id, self.folder, self.digest = self.found.id, self.found.path, self.found.digest
        self.experts = self.found.shape.experts
        self.params = params
        self.device = pick_device(params.device, "backbone.device")
        self.dtype = getattr(torch, params.dtype)
        if self.device.type == "cuda":
            prepare_gpu(self.dtype, allow_tf32=params.allow_tf32)
        config = WanTransformer3DModel.load_config(self.folder / "transformer")
        check_attention(params, self.device, self.dtype, config.get("attention_head_dim", 128))
        if params.compile:
            check_compiler(self.device, self.memory)
        self._parts: dict[str, Any] = {}  # each of a type of its own

    @property
    def transformer(self) -> WanTransformer3DModel:
        """The transformer, of two the high-noise one, in the params' precision, on the device, in evaluation mode."""
        return self.transformer_of(self.experts[0])

    def transformer_of(self, expert: Expert) -> WanTransformer3DModel:
        """The transformer of one of the `experts`, as `transformer` is."""
        name = expert.component
        return self._part(name, lambda: self._transformer(name, offloaded=False))

    def frozen_of(self, expert: Expert) -> WanTransformer3DModel:
        """The same for stages that tune nothing: its blocks may wait in the host's memory."""
        if not self.memory.offloaded_blocks:
            return self.transformer_of(expert)
        name = expert.component
        return self._part(_offloaded(name), lambda: self._transformer(name, offloaded=True))

    @property
    def vae(self) -> AutoencoderKLWan:
        """The video autoencoder, in float32, on the device."""
        return self._part("vae", lambda: self._model(AutoencoderKLWan, "vae", torch.float32, self.device))

    def encode_texts(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Prompt embeddings, float32 (tokens, channels) each, padded with zeros as `WanPipeline` pads them."""
        device = torch.device("cpu") if self.memory.text_on_host else self.device
        encoder = self._part("text_encoder", lambda: self._model(UMT5EncoderModel, "text_encoder", self.dtype, device))
        tokenizer = self._part("tokenizer", lambda: self._load(AutoTokenizer, "tokenizer"))
        # diffusers' annotations do not say that a part may be None
        pipeline = WanPipeline(tokenizer=tokenizer, text_encoder=encoder, vae=None, scheduler=None)  # type: ignore[arg-type]
        with torch.no_grad():
            return [
                pipeline.encode_prompt(
                    text,
                    do_classifier_free_guidance=False,
                    max_sequence_length=self.params.max_sequence_length,
                    device=device,
                )[0][0].float().cpu()
                for text in texts
            ]  # fmt: skip

    def encode_video(self, frames: np.ndarray) -> torch.Tensor:
        """Normalised latents float32 (C, F, h, w) of frames uint8 (T, H, W, 3), T = 4 (F - 1) + 1."""
        return self._encode(torch.from_numpy(frames).permute(3, 0, 1, 2)[None].to(self.device).float() / 127.5 - 1)

    def first_frame(self, image: np.ndarray, num_frames: int) -> FirstFrame:
        """An image uint8 (H, W, 3) as the first frame of a video of `num_frames` frames, as this backbone is given it.

        It encodes what diffusers' `WanImageToVideoPipeline` encodes. The folder's shape says that one can be given.
        """
        shape = self.found.shape
        assert shape.first_frame or shape.needs_image
        if not shape.needs_image:
            return FirstFrame(self.encode_video(image[None])[None], clean=True)
        picture = torch.from_numpy(image).permute(2, 0, 1)[None, :, None].to(self.device).float() / 127.5 - 1
        gray = picture.new_zeros(*picture.shape[:2], num_frames - 1, *picture.shape[3:])
        latents = self._encode(torch.cat([picture, gray], dim=2))[None]
        mask = torch.zeros(1, 4, *latents.shape[2:])
        mask[:, :, 0] = 1
        return FirstFrame(torch.cat([mask, latents], dim=1), clean=False, embedding=self._embed_image(image))

    def decode_video(self, latents: torch.Tensor) -> np.ndarray:
        """Frames uint8 (T, H, W, 3) of normalised latents (C, F, h, w), T = 4 (F - 1) + 1."""
        mean, std = self._latent_statistics()
        with torch.no_grad():
            vae = self._vae(tiled=self.memory.tiled_decoding)
            video = vae.decode((latents * std + mean)[None].to(self.device)).sample[0].cpu()
        return ((video.permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()

    def pipeline(self, flow_shift: float) -> WanPipeline:
        """A stock pipeline over this backbone's transformers and VAE, for prompts that are encoded already.

        It samples by UniPC with Wan's flow settings, whatever scheduler the folder has; the folder's other settings
        hold where that is a UniPC.
        """
        pipeline = WanPipeline(**self._pipeline_parts(flow_shift), expand_timesteps=self.found.shape.expand_timesteps)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def image_pipeline(self, flow_shift: float) -> "WanImageToVideoPipeline":
        """`pipeline`, but one that takes an image as the first frame; the folder's shape says that one can be given."""
        from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline  # it imports CLIP's, as below

        parts, shape = self._pipeline_parts(flow_shift), self.found.shape
        if shape.image_encoder:
            parts |= {"image_encoder": self._image_encoder(), "image_processor": self._image_processor()}
        pipeline = WanImageToVideoPipeline(**parts, expand_timesteps=not shape.needs_image)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _pipeline_parts(self, flow_shift: float) -> dict[str, Any]:
        """Arguments of a stock pipeline's class."""
        shape = self.found.shape
        if shape.scheduler == UniPCMultistepScheduler.__name__:
            scheduler = self._load(UniPCMultistepScheduler, "scheduler", **FLOW, flow_shift=flow_shift)
        else:
            scheduler = UniPCMultistepScheduler(**FLOW, flow_shift=flow_shift)
        return {
            "tokenizer": None,
            "text_encoder": None,
            "vae": self._vae(tiled=self.memory.tiled_decoding),
            "scheduler": scheduler,
            "transformer": self.frozen_of(self.experts[0]),
            "transformer_2": self.frozen_of(self.experts[1]) if self.experts[1:] else None,
            "boundary_ratio": shape.boundary,
        }

    def _encode(self, video: torch.Tensor) -> torch.Tensor:
        """Normalised latents (C, F, h, w) of a video (1, 3, T, H, W) in [-1, 1]."""
        with torch.no_grad():
            latents = self._vae(tiled=False).encode(video).latent_dist.mode()[0].cpu()
        mean, std = self._latent_statistics()
        return (latents - mean) / std

    def _embed_image(self, image: np.ndarray) -> torch.Tensor | None:
        """What a transformer reads of an image by CLIP, float32 (1, tokens, channels); None where it does not."""
        if not self.found.shape.image_encoder:
            return None
        inputs = self._image_processor()(images=Image.fromarray(image), return_tensors="pt").to(self.device)
        with torch.no_grad():
            return self._image_encoder()(**inputs, output_hidden_states=True).hidden_states[-2].cpu()

    def _image_encoder(self) -> CLIPVisionModel:
        return self._part(
            "image_encoder", lambda: self._model(CLIPVisionModel, "image_encoder", torch.float32, self.device)
        )

    def _image_processor(self) -> "CLIPImageProcessor":
        from transformers import CLIPImageProcessor  # without torchvision transformers logs a warning here

        return self._part("image_processor", lambda: self._load(CLIPImageProcessor, "image_processor"))

    def keep(self, *names: str, frozen: bool = False) -> None:
        """Releases every loaded part but these; tuning keeps the transformer alone.

        frozen: where blocks are offloaded, the transformers among them are those of `frozen_of`.
        """
        if frozen and self.memory.offloaded_blocks:
            names = tuple(_offloaded(name) if name.startswith("transformer") else name for name in names)
        released = [self._parts.pop(name) for name in list(self._parts) if name not in names]
        if released:
            del released
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _vae(self, *, tiled: bool) -> AutoencoderKLWan:
        """The autoencoder, which works on overlapping tiles of the picture where it is tiled."""
        if tiled:
            self.vae.enable_tiling()
        else:
            self.vae.disable_tiling()
        return self.vae

    def _transformer(self, name: str, *, offloaded: bool) -> WanTransformer3DModel:
        """Loads a transformer; 8 bits and offloading come before it reaches the device."""
        waits = offloaded or self.memory.float8_base
        device = torch.device("cpu") if waits else self.device
        transformer = self._model(WanTransformer3DModel, name, self.dtype, device)
        set_attention(transformer, self.params)
        if self.memory.float8_base:
            store_in_float8(transformer)
        if offloaded:
            offload_blocks(transformer, self.device)
            return transformer
        return transformer.to(self.device)

    def _latent_statistics(self) -> tuple[torch.Tensor, ...]:
        """Mean and standard deviation (C, 1, 1, 1) of the VAE's latents."""
        config = self.vae.config
        return tuple(torch.tensor(v).view(-1, 1, 1, 1) for v in (config["latents_mean"], config["latents_std"]))

    def _part(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._parts:
            self._parts[name] = load()
        return self._parts[name]

    def _model(self, kind: Any, name: str, dtype: torch.dtype, device: torch.device) -> Any:
        """Loads a model of class `kind`, frozen, in evaluation mode, on a device; all its weights must be there."""
        options: dict[str, object] = {"dtype" if kind in (UMT5EncoderModel, CLIPVisionModel) else "torch_dtype": dtype}
        if device.type != "cpu":  # weight by weight: the host never holds the whole model
            options["device_map"] = {"": device}
        load = partial(self._load, kind, name, use_safetensors=True, output_loading_info=True)
        try:
            model, loading_info = load(**options)
        except BackboneError:
            if options.pop("device_map", None) is not None:  # it fails there before it knows the missing weights' names
                self._check_complete(name, load(**options)[1])
            raise
        self._check_complete(name, loading_info)
        return model.to(device).eval().requires_grad_(False)

    def _load(self, kind: Any, name: str, **options: object) -> Any:
        """What `from_pretrained` of `kind`, a class of diffusers or transformers, returns."""
        try:
            if kind is AutoTokenizer:
                tokenizer = kind.from_pretrained(self.folder / name, local_files_only=True, **options)
                tokenizer(["☃"], padding="max_length", max_length=8, truncation=True)  # it needs its special tokens
                return tokenizer
            return kind.from_pretrained(self.folder, subfolder=name, local_files_only=True, **options)
        except Exception as error:  # the libraries raise anything where a config fits no model
            raise self._unusable(name, " ".join(str(error).split())[:300]) from error

    def _check_complete(self, name: str, loading_info: Mapping[str, Sequence[str]]) -> None:
        """Raises BackboneError where a model would run with weights at random, or the file holds those of another.

        The libraries only log both. `loading_info` is that of `from_pretrained`; tied weights and the keys that a model
        class ignores are not among its keys.
        """
        for key, verb in (("missing_keys", "lacks"), ("unexpected_keys", "has unknown")):
            if found := sorted(loading_info[key]):
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                raise self._unusable(name, f"its file {verb} weights {', '.join(found[:3])}{more}")

    def _unusable(self, name: str, reason: str) -> BackboneError:
        return BackboneError(
            f"backbone {self.folder}: its {name} cannot be loaded ({reason}); expected a WanPipeline folder"
        )


def _offloaded(name: str) -> str:
    """The part's name where its blocks are offloaded."""
    return f"offloaded_{name}"

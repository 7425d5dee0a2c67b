"""The frozen video model: any `WanPipeline` folder or hub id, its parts loaded when needed and released when not."""

import gc
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoTokenizer, UMT5EncoderModel

from effivmt.config import BackboneParams
from effivmt.errors import BackboneError
from effivmt.store import canonical_json, sha256_bytes, sha256_tree

COMPONENTS = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")


class Backbone:
    """The parts of one backbone in one process; each is loaded once and kept until `keep` lets it go.

    `digest` identifies the weights and configs of all parts (a model card beside them does not count).
    """

    def __init__(self, params: BackboneParams, memo: Path | None = None) -> None:
        """Finds the folder (downloading a hub id) and checks it; `memo` is a file that remembers digests."""
        self.id = Path(params.path).name if Path(params.path).exists() else params.path
        self.params = params
        self.folder = _find_folder(params.path)
        self.device = _device(params.device)
        self.dtype = getattr(torch, params.dtype)
        self.digest = _folder_digest(self.folder, memo)
        self._parts: dict[str, object] = {}

    @property
    def transformer(self) -> WanTransformer3DModel:
        """The transformer, in the params' precision, on the device, in evaluation mode."""
        return self._part("transformer", lambda: self._model(WanTransformer3DModel, "transformer", self.dtype))

    @property
    def vae(self) -> AutoencoderKLWan:
        """The video autoencoder, in float32, on the device."""
        return self._part("vae", lambda: self._model(AutoencoderKLWan, "vae", torch.float32))

    def encode_texts(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Prompt embeddings, float32 (tokens, channels) each, padded with zeros as `WanPipeline` pads them."""
        encoder = self._part("text_encoder", lambda: self._model(UMT5EncoderModel, "text_encoder", self.dtype))
        tokenizer = self._part("tokenizer", lambda: self._load(AutoTokenizer, "tokenizer"))
        pipeline = WanPipeline(tokenizer=tokenizer, text_encoder=encoder, vae=None, scheduler=None)
        with torch.no_grad():
            return [
                pipeline.encode_prompt(
                    text,
                    do_classifier_free_guidance=False,
                    max_sequence_length=self.params.max_sequence_length,
                    device=self.device,
                )[0][0].float().cpu()
                for text in texts
            ]  # fmt: skip

    def encode_video(self, frames: np.ndarray) -> torch.Tensor:
        """Normalised latents float32 (C, F, h, w) of frames uint8 (T, H, W, 3), T = 4 (F - 1) + 1."""
        video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].to(self.device).float() / 127.5 - 1
        with torch.no_grad():
            latents = self.vae.encode(video).latent_dist.mode()[0].cpu()
        mean, std = (
            torch.tensor(v).view(-1, 1, 1, 1) for v in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        return (latents - mean) / std

    def pipeline(self, flow_shift: float) -> WanPipeline:
        """A stock pipeline over this backbone's transformer and VAE, for prompts that are encoded already."""
        scheduler = self._load(UniPCMultistepScheduler, "scheduler", flow_shift=flow_shift)
        pipeline = WanPipeline(
            tokenizer=None, text_encoder=None, vae=self.vae, scheduler=scheduler, transformer=self.transformer
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def keep(self, *names: str) -> None:
        """Releases every loaded part but these; tuning keeps the transformer alone."""
        released = [self._parts.pop(name) for name in list(self._parts) if name not in names]
        if released:
            del released
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _part(self, name: str, load: Callable[[], object]):
        if name not in self._parts:
            self._parts[name] = load()
        return self._parts[name]

    def _model(self, kind: type, name: str, dtype: torch.dtype):
        model = self._load(kind, name, **{"dtype" if kind is UMT5EncoderModel else "torch_dtype": dtype})
        return model.to(self.device).eval().requires_grad_(False)

    def _load(self, kind: type, name: str, **options):
        try:
            if kind in (WanTransformer3DModel, AutoencoderKLWan, UMT5EncoderModel):
                options["use_safetensors"] = True
            source = (self.folder / name,) if kind is AutoTokenizer else (self.folder,)
            subfolder = {} if kind is AutoTokenizer else {"subfolder": name}
            return kind.from_pretrained(*source, **subfolder, local_files_only=True, **options)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BackboneError(
                f"backbone {self.folder}: its {name} cannot be loaded ({reason}); expected a WanPipeline folder"
            ) from error


def _find_folder(path: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(path, allow_patterns=["model_index.json", *(f"{c}/*" for c in COMPONENTS)]))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise BackboneError(
                f"backbone {path} is no folder here and cannot be fetched as a hub id ({type(error).__name__}); "
                "give a WanPipeline folder or a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            ) from error
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"backbone {folder} has no readable model_index.json; expected a WanPipeline folder"
        ) from error
    if index.get("_class_name") != "WanPipeline" or index.get("transformer_2", [None, None])[1] is not None:
        raise BackboneError(
            f"backbone {folder} is a {index.get('_class_name')}; expected a Wan-2.1 text-to-video "
            "WanPipeline with one transformer"
        )
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise BackboneError(f"backbone {folder} lacks {', '.join(missing)}; fetch or copy the folder again")
    return folder


def _folder_digest(folder: Path, memo: Path | None) -> str:
    """Digest of all component files; `memo` remembers it by the files' names, sizes and times of change."""
    stamps = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for name in COMPONENTS
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    ]
    signature = sha256_bytes(canonical_json([str(folder.resolve()), stamps]))
    known: dict[str, str] = {}
    if memo is not None and memo.exists():
        known = json.loads(memo.read_text(encoding="utf-8"))
    if signature not in known:
        known[signature] = sha256_bytes(canonical_json([sha256_tree(folder / name) for name in COMPONENTS]))
        if memo is not None:
            memo.parent.mkdir(parents=True, exist_ok=True)
            temporary = memo.with_name(f"{memo.name}.{os.getpid()}")
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
            os.replace(temporary, memo)
    return known[signature]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackboneError(f"backbone.device is {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"backbone.device is {name!r} but no GPU is visible; set backbone.device to auto or cpu")
    return device

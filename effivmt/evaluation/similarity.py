"""CLIP metrics of a video: agreement with its prompt, consistency over time, resemblance to the reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig

from effivmt.errors import VideoError
from effivmt.evaluation.scorer_folder import check_kind, unusable

BATCH = 32
"""Frames or texts in a batch of the model."""


class ClipScorer:
    """Image and text features of a `transformers.CLIPModel` folder (model, tokenizer, image processor), on the CPU."""

    def __init__(self, folder: Path) -> None:
        """Loads the folder; raises BackboneError if it is missing, damaged, incomplete or of another kind."""
        check_kind(folder)
        try:
            loaded: Any = CLIPModel.from_pretrained(  # with the loading info it returns a pair, unlike its annotation
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.tokenizer(["☃"], padding="max_length", max_length=8, truncation=True)  # it needs its special tokens
            self.processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the libraries raise anything where a config fits no model
            raise unusable(folder, f"cannot be loaded ({' '.join(str(error).split())[:300]})") from error
        model, loading_info = loaded
        for keys, verb in (("missing_keys", "lacks"), ("unexpected_keys", "has unknown")):
            if found := sorted(loading_info[keys]):
                raise unusable(folder, f"{verb} {len(found)} weights ({found[0]} …)")
        self.model: CLIPModel = model.eval().requires_grad_(False)

    def frame_features(self, frames: np.ndarray) -> np.ndarray:
        """Features float32 (T, C), unit rows, of frames uint8 (T, H, W, 3), T at least 1."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
            raise VideoError(
                f"cannot score {frames.dtype} frames of shape {frames.shape}: give uint8 frames (T, H, W, 3)"
            )
        batches = [
            self.processor(list(frames[start : start + BATCH]), return_tensors="pt", input_data_format="channels_last")
            for start in range(0, len(frames), BATCH)
        ]
        return _unit_rows([self.model.get_image_features(batch.pixel_values).pooler_output for batch in batches])

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """Features float32 (B, C), unit rows, of B texts, at least one; a text too long for the model is cut."""
        length = cast(CLIPTextConfig, self.model.config.text_config).max_position_embeddings
        batches = [
            self.tokenizer(
                list(texts[start : start + BATCH]),
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            )
            for start in range(0, len(texts), BATCH)
        ]
        return _unit_rows(
            [self.model.get_text_features(batch.input_ids, batch.attention_mask).pooler_output for batch in batches]
        )


def temporal_consistency(features: np.ndarray) -> float:
    """Mean cosine of adjacent frames, in [-1, 1]; features (T, C) are unit rows. A frozen video scores 1.

    Raises VideoError for fewer than 2 frames.
    """
    if len(features) < 2:
        raise VideoError(f"temporal consistency of {len(features)} frames is undefined: give a video of at least 2")
    return float((features[1:] * features[:-1]).sum(1).mean())


def text_similarity(frame_features: np.ndarray, text_features: np.ndarray) -> float:
    """Mean cosine of all frames (T, C) with all texts (B, C), in [-1, 1]; both are unit rows."""
    return float((frame_features @ text_features.T).mean())


def appearance_leakage(frame_features: np.ndarray, caption_features: np.ndarray, prompt_features: np.ndarray) -> float:
    """How much nearer frames (T, C) are to the reference's caption (1, C) than to their own prompt (1, C).

    The difference of the mean cosines of unit rows, in [-2, 2]: 0 if the frames are as near to one as to the other,
    below 0 if they are nearer to the prompt.
    """
    return text_similarity(frame_features, caption_features) - text_similarity(frame_features, prompt_features)


def reference_resemblance(frame_features: np.ndarray, reference_features: np.ndarray) -> float:
    """Mean cosine of frames (T, C) with the reference's frames (T', C) at the same times, in [-1, 1]; unit rows.

    The times run from the first frame of each video to its last; of the longer video the nearest frames are used.
    """
    length = min(len(frame_features), len(reference_features))
    pair = [
        features[np.linspace(0, len(features) - 1, length).round().astype(int)]
        for features in (frame_features, reference_features)
    ]
    return float((pair[0] * pair[1]).sum(1).mean())


def _unit_rows(batches: list[torch.Tensor]) -> np.ndarray:
    return F.normalize(torch.cat(batches), dim=-1).numpy()

"""The flow-matching error of captioned samples, as one module."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformer3DModel
from torch import nn
from transformers import UMT5EncoderModel

from effivmt.method.losses import add_noise, denoising_errors, velocity
from effivmt.method.rope import AdaptiveRope, time_positions_of


class PadBias(WanAttnProcessor):
    """Cross-attention that sees one padding token as if it were there `bias` = log n times.

    WanPipeline pads prompts with zero embeddings that are not masked; a model trained with this bias at random n takes
    any padded length.
    """

    bias: torch.Tensor | None = None

    def __call__(  # noqa: PLR0917  (diffusers' signature)
        self,
        attn: WanAttention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, self.bias, rotary_emb)


class PredictionErrors(nn.Module):
    """The mean squared error of each sample's velocity (flow matching), with gradients for both models.

    Within `prepared` the transformer has a settable time axis and takes one padding token for many.
    """

    def __init__(
        self,
        transformer: WanTransformer3DModel,
        text_encoder: UMT5EncoderModel,
        products: Callable[[], AbstractContextManager],
    ) -> None:
        super().__init__()
        self.transformer, self.text_encoder = transformer, text_encoder
        self._products, self._pad = products, PadBias()

    @contextmanager
    def prepared(self) -> Iterator["PredictionErrors"]:
        """Within the context the module can be called; after it the transformer is as it was."""
        for attention in _cross_attention(self.transformer):
            attention.set_processor(self._pad)  # type: ignore[arg-type]  # diffusers' list lacks Wan's
        try:
            with time_positions_of(self.transformer):
                yield self
        finally:
            for attention in _cross_attention(self.transformer):
                attention.set_processor(WanAttnProcessor())  # type: ignore[arg-type]  # diffusers' list lacks Wan's

    def forward(  # noqa: PLR0917  (a CUDA graph takes its inputs by position)
        self,
        clean: torch.Tensor,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        pad_bias: torch.Tensor,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Errors float32 (B,) of latents `clean` (B, C, F, h, w) with `noise` of their shape at levels `sigmas` (B,).

        Of `sigmas` (B, F) the first column is 0 and the others are alike: the first latent frame is given, clean, with
        timestep 0 on its tokens (`expand_timesteps` of Wan 2.2 TI2V), and is left out of the error.
        Captions are token `ids` (B, L) with their `mask` (B, L); one padding token counts exp(`pad_bias`) times, (B,).
        `positions` (B, F) are the latent frames' places in time; None: 0, 1, 2, ...
        """
        cast(AdaptiveRope, self.transformer.rope).positions = positions  # within `prepared` it is one
        with self._products():
            text = self.text_encoder(ids, mask).last_hidden_state * mask[..., None]
            text = torch.cat([text, text.new_zeros(len(text), 1, text.shape[2])], dim=1)
            bias = torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask == 0, -torch.inf)
            self._pad.bias = torch.cat([bias, pad_bias[:, None]], dim=1)[:, None, None]
            noisy, times = _at_levels(clean, noise, sigmas)
            predicted = self.transformer(noisy, times, text, return_dict=False)[0]
        given = int(sigmas.ndim == 2)
        return denoising_errors(predicted[:, :, given:], velocity(clean, noise)[:, :, given:])


def _cross_attention(transformer: WanTransformer3DModel) -> list[WanAttention]:
    """The cross-attention of each block."""
    return [cast(WanAttention, block.get_submodule("attn2")) for block in transformer.blocks]  # torch says Module


def _at_levels(clean: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy latents (B, C, F, h, w) and the timesteps, (B,) or, for sigmas (B, F), one a token (B, S)."""
    if sigmas.ndim == 1:
        return add_noise(clean, noise, sigmas), 1000 * sigmas
    noisy = torch.cat([clean[:, :, :1], add_noise(clean, noise, sigmas[:, -1])[:, :, 1:]], dim=2)
    tokens = clean.shape[3] * clean.shape[4] // 4
    return noisy, 1000 * sigmas[:, :, None].expand(-1, -1, tokens).flatten(1)

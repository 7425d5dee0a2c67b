"""How large the normalised channels of the latents are made."""

import torch
from diffusers import AutoencoderKLWan

from effivmt.pretrain import autoencoder
from effivmt.pretrain.latents import channel_scales, latent_statistics


def scales_of(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    return channel_scales(vae, latents, latent_statistics(latents)[1], clips=4)


def test_a_channel_that_shows_more_is_made_larger() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**autoencoder.CONFIG).eval()
    latents = torch.randn(6, 32, 9, 2, 3)
    with torch.no_grad():
        vae.post_quant_conv.weight[:, 5] *= 10
        vae.post_quant_conv.weight[:, 7] *= 0
        vae.post_quant_conv.weight[:, 9] *= 2
    scales = scales_of(vae, latents)
    others = [index for index in range(32) if index not in (5, 7, 9)]
    assert scales.shape == (32,) and scales.min() >= 0.6 - 1e-6 and scales.max() <= 1.8 + 1e-6
    assert scales[5] == scales.max() > scales[9] > scales[others].median() > scales[7] - 1e-6
    assert torch.allclose(scales[7], torch.tensor(0.6))


def test_the_spread_of_a_channel_counts_as_much_as_its_weight() -> None:
    torch.manual_seed(1)
    vae = AutoencoderKLWan(**autoencoder.CONFIG).eval()
    latents = torch.randn(6, 32, 9, 2, 2)
    once = scales_of(vae, latents)
    latents[:, 3] *= 4
    assert scales_of(vae, latents)[3] > 1.3 * once[3]

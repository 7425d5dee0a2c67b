"""The whole-clip passes equal diffusers' chunked ones; training resumes to the same bytes."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from effivmt.pretrain import autoencoder


@pytest.fixture
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(**{**autoencoder.CONFIG, "base_dim": 4, "z_dim": 4, "latents_mean": [0.0] * 4})


@pytest.mark.parametrize("num_frames", [1, 5, 13])
def test_whole_clip_equals_chunked(vae: AutoencoderKLWan, num_frames: int) -> None:
    video = torch.rand(2, 3, num_frames, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = autoencoder.encode_whole(vae, video)
        assert torch.allclose(latents, vae._encode(video), atol=1e-5)
        mean = latents.chunk(2, dim=1)[0]
        whole = autoencoder.decode_whole(vae, mean)
        assert whole.shape == video.shape
        assert torch.allclose(whole.clamp(-1, 1), vae.decode(mean).sample, atol=1e-5)


def test_resumes_to_the_same_bytes(vae: AutoencoderKLWan, tmp_path: Path) -> None:
    start = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    settings = {"steps": 4, "lengths": (5,), "batch_frames": 10, "pool": 4, "save_every": 2}
    whole = autoencoder.train_autoencoder(vae, tmp_path, **settings)
    trained = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    assert any(not torch.equal(trained[name], start[name]) for name in start)

    vae.load_state_dict(start)
    (tmp_path / "autoencoder.safetensors").unlink()
    with pytest.raises(KeyboardInterrupt):
        autoencoder.train_autoencoder(vae, tmp_path, report=_stop_at(3), **settings)
    vae.load_state_dict(start)
    assert autoencoder.train_autoencoder(vae, tmp_path, **settings) == whole
    assert all(torch.equal(tensor, trained[name]) for name, tensor in vae.state_dict().items())


def _stop_at(step: int):
    def report(done: int, _figures: dict[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return report

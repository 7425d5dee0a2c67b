"""The whole-clip passes equal diffusers' chunked ones; training resumes to the same bytes."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from effivmt.pretrain import autoencoder


@pytest.fixture
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        **{**autoencoder.CONFIG, "base_dim": 4, "z_dim": 4, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    )


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


def test_trained_on_it_keeps_its_latents_near(vae: AutoencoderKLWan, tmp_path: Path) -> None:
    start = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    video = torch.rand(2, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    settings = {"steps": 30, "lengths": (5,), "batch_frames": 10, "pool": 4, "learning_rate": 3e-2}
    moved = []
    for held in (True, False):
        vae.load_state_dict(start)
        near = copy.deepcopy(vae).eval().requires_grad_(False)
        folder = tmp_path / str(held)
        folder.mkdir()
        autoencoder.train_autoencoder(vae, folder, near=near if held else None, **settings)
        assert not torch.equal(vae.encoder.conv_in.weight, start["encoder.conv_in.weight"])
        assert all(torch.equal(tensor, start[name]) for name, tensor in near.state_dict().items())
        with torch.no_grad():
            apart = [autoencoder.encode_whole(model, video).chunk(2, dim=1)[0] for model in (vae, near)]
        moved.append((apart[0] - apart[1]).square().mean().item())
    print(f"latents moved by {moved[0]:.5f} where they were held, else by {moved[1]:.5f}")
    assert moved[0] < 0.5 * moved[1]


def test_crops_lie_in_their_clips_and_show_what_is_there() -> None:
    clips = autoencoder._Clips(3, 6, torch.device("cpu"), kinds=autoencoder.KINDS)
    video, weight = clips.crops(0, 0, 40, 5, size=32)
    assert video.shape == (40, 3, 5, 32, 32) and weight.shape == (40, 1, 5, 32, 32)
    assert video.min() >= -1 and video.max() <= 1 and (weight.amax((1, 2, 3, 4)) > 3).float().mean() > 0.7
    whole = (clips.frames.float() / 127.5 - 1).permute(0, 4, 1, 2, 3)
    for crop in video[:4]:
        windows = whole.unfold(2, 5, 1).unfold(3, 32, 1).unfold(4, 32, 1)  # (M, 3, T', Y, X, T, 32, 32)
        found = (windows[:, :, :, :, :, 0, 0, 0] == crop[None, :, None, None, None, 0, 0, 0]).all(1).nonzero()
        assert any(torch.equal(windows[m, :, t, y, x], crop) for m, t, y, x in found.tolist())
    again, _ = clips.crops(0, 0, 40, 5, size=32)
    assert torch.equal(video, again) and not torch.equal(video, clips.crops(0, 1, 40, 5, size=32)[0])


def test_a_large_crop_is_the_whole_frame() -> None:
    clips = autoencoder._Clips(3, 2, torch.device("cpu"), kinds=autoencoder.KINDS)
    video, _ = clips.crops(0, 0, 3, 33, size=64)
    whole = (clips.frames.float() / 127.5 - 1).permute(0, 4, 1, 2, 3)
    assert all(any(torch.equal(crop, clip) for clip in whole) for crop in video)

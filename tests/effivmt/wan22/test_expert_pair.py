"""A pair of experts is made of one backbone; with one that was trained, adapters of both are exported exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import by_card, fused_all, stock, video
from safetensors.torch import load_file

from effivmt.config import BackboneParams, Params
from effivmt.embedded import WAN_TINY, find_embedded
from effivmt.errors import BackboneError
from effivmt.method.adapter import load_adapter
from effivmt.method.backbone_folder import find_backbone
from effivmt.method.prediction import predict_velocity
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.pretrain.expert_pair import Effort, tune_apart
from effivmt.store.store import Store

LITTLE = Effort(steps=2, clips=2, batch=2, frames=3)
CPU = torch.device("cpu")


def weights_of(folder: Path, component: str) -> dict[str, torch.Tensor]:
    (path,) = (folder / component).glob("*.safetensors")
    return load_file(path)


def test_a_pair_is_a_backbone_whose_transformers_were_tuned_apart(backbone_folder, tmp_path):
    steps = []
    losses = tune_apart(
        backbone_folder, tmp_path / "pair", device=CPU, effort=LITTLE, report=lambda *step: steps.append(step)
    )
    assert steps == [(name, step, 2) for name in ("high_noise", "low_noise") for step in (1, 2)]
    assert json.loads((tmp_path / "pair" / "losses.json").read_text()) == losses
    assert all(len(curve) == 2 and np.isfinite(curve).all() for curve in losses.values())
    found = find_backbone(BackboneParams(path=str(tmp_path / "pair")))
    assert found.shape.boundary == 0.875 and len(found.shape.experts) == 2
    start, high, low = (
        weights_of(backbone_folder, "transformer"),
        *(weights_of(tmp_path / "pair", name) for name in ("transformer", "transformer_2")),
    )
    name = "blocks.0.attn1.to_q.weight"
    assert not torch.equal(high[name], low[name]) and high[name].dtype == torch.float16
    assert all((other[name] - start[name]).abs().max() < 1e-2 for other in (high, low))
    tune_apart(backbone_folder, tmp_path / "again", device=CPU, effort=LITTLE)
    assert find_backbone(BackboneParams(path=str(tmp_path / "again"))).digest == found.digest


def test_what_is_no_backbone_is_told(tmp_path):
    with pytest.raises(BackboneError, match=r"is no WanPipeline folder; give --start one"):
        tune_apart(tmp_path, tmp_path / "pair", device=CPU)


@pytest.mark.slow
def test_a_trained_pair_is_tuned_and_exported_to_the_last_digits(sample_video, zigzag, tmp_path):
    folder = tmp_path / "pair"
    tune_apart(find_embedded(WAN_TINY), folder, device=CPU, effort=Effort(steps=20, clips=4, batch=2, frames=4))
    tuning = {"steps": 6, "batch": 2}
    params = Params.model_validate(
        {
            "backbone": {"path": str(folder)},
            "ingest": {"num_frames": 17, "fps": 8},
            "sampling": {"frames": 9},
            "spatial": tuning,
            "temporal": tuning,
            "render": {"steps": 4, "baseline": False, "motion_boundary": 0.0},
        }
    )
    work = Workspace(Store(tmp_path / "store"), params)
    adapter = run_clip(work, zigzag).motion.folder("adapter")
    prompts = work.backbone.encode_texts(["a green circle on a gray background", ""])
    card, files = by_card(adapter, folder), stock(folder)
    for name, second in (("high", False), ("low", True)):
        file = f"comfyui_{name}_noise.safetensors"
        files.load_lora_weights(adapter, weight_name=file, adapter_name="both", load_into_transformer_2=second)
    plain = video(stock(folder), prompts, side=64)
    latents = torch.randn(1, 32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for exported in (card, files):
        with fused_all(work.backbone, load_adapter(adapter)), torch.no_grad():
            for expert, timestep in zip(work.experts, (950.0, 500.0), strict=True):
                inputs = (latents, torch.tensor([timestep]), prompts[0][None])
                velocity = predict_velocity(work.backbone.transformer_of(expert), *inputs)
                error = (getattr(exported, expert.component)(*inputs).sample - velocity).abs().max().item()
                print(f"{expert.name}: max abs error of the velocity {error:.1e}")
                assert error <= 1e-5
            found = video(work.backbone.pipeline(5.0), prompts, side=64)
        # Guidance multiplies the rounding of a step by up to 7, and four steps add up.
        assert np.abs(found - video(exported, prompts, side=64)).max() <= 5e-5 and np.abs(found - plain).max() > 1e-3

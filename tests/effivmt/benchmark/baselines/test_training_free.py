"""What holds of every training-free peer: its loss falls, the reference decides, and the rest is as in rendering."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_bytes

from effivmt.benchmark.baselines import ditflow, smm
from effivmt.method import flow_motion, guided
from effivmt.method.rendering import render

PEERS = {
    "ditflow": (ditflow, ditflow.DiTFlowParams(learning_rates=(0.02, 0.01))),
    "smm": (smm, smm.SMMParams(adam_steps=5)),
    "flow_motion": (flow_motion, flow_motion.FlowMotionParams(learning_rate=0.01)),
}


@pytest.fixture(params=PEERS)
def peer(request, guided_request, reference):
    """Runs one of the peers; with its params changed, where some are given."""
    module, params = PEERS[request.param]

    def run(reference=reference, seed=0, **changes) -> np.ndarray:
        changed = params.model_copy(update=changes)
        return module.generate(replace(guided_request, reference=reference, seed=seed), changed)

    return run


def test_its_loss_falls_at_every_guided_step(peer, monkeypatch):
    losses, stock = [], guided.optimise

    def recording(latents, loss, *options):
        moved = stock(latents, loss, *options)
        with torch.no_grad():
            losses.append((loss(latents).item(), loss(moved).item()))
        return moved

    monkeypatch.setattr(guided, "optimise", recording)
    peer(guided_share=0.6)
    assert len(losses) == 3 and all(0 < after < before for before, after in losses)


def test_same_seed_same_bytes_whatever_the_global_one(peer, backbone, prompts, render_params, size):
    before = to_bytes(backbone.transformer.state_dict())
    torch.manual_seed(1)
    first = peer()
    torch.manual_seed(2)
    assert first.shape == (9, 32, 48, 3) and first.dtype == np.uint8
    assert peer().tobytes() == first.tobytes() != peer(seed=1).tobytes()
    assert to_bytes(backbone.transformer.state_dict()) == before
    assert all(parameter.grad is None for parameter in backbone.transformer.parameters())
    stock = render(backbone, None, *prompts, params=render_params, size=size, seed=0)
    assert first.tobytes() != stock.tobytes() and peer(guided_share=0.0).tobytes() == stock.tobytes()


def test_the_reference_decides(peer, reference):
    assert peer().tobytes() != peer(reference=reference.flip(2)).tobytes()

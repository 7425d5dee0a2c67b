"""`max_grad_norm` bounds a step's gradient; unset, nothing changes and nothing is written of it."""

import pytest
import torch
from pydantic import ValidationError
from staged import bytes_of

from effivmt.config import Params, SpatialParams


def test_a_bound_that_is_never_reached_changes_nothing_and_a_tight_one_does(transformer, stage):
    plain = bytes_of(stage(transformer))
    stage.checkpoint.unlink()
    assert bytes_of(stage(transformer, max_grad_norm=1e6)) == plain
    stage.checkpoint.unlink()
    assert bytes_of(stage(transformer, max_grad_norm=1e-9)) != plain


def test_the_norm_is_that_of_all_weights_together(transformer, stage, monkeypatch):
    seen, step = [], torch.optim.AdamW.step

    def look(optimizer, *args, **kwargs):
        leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
        seen.append(torch.cat([leaf.grad.flatten() for leaf in leaves]).norm().item())
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    stage(transformer, max_grad_norm=1e-3)
    assert seen == [pytest.approx(1e-3, rel=1e-3)] * 4


def test_keys_and_adapters_have_it_where_it_is_set_alone():
    assert "max_grad_norm" not in str(Params().model_dump()) and "max_grad_norm" not in Params().model_dump_json()
    changed = Params(spatial=SpatialParams(max_grad_norm=1.0))
    assert changed.model_dump()["spatial"]["max_grad_norm"] == 1.0
    assert Params.model_validate(changed.model_dump()) == changed and Params.model_validate(Params().model_dump())
    with pytest.raises(ValidationError, match="max_grad_norm"):
        SpatialParams(max_grad_norm=0)

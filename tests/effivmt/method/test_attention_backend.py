"""`backbone.attention`: checked where a run starts, used wherever the transformer computes, and part of the keys."""

import copy

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

from effivmt.config import BackboneParams
from effivmt.errors import ParamsError
from effivmt.method.attention import ForwardOnlyProcessor, check_attention, set_attention
from effivmt.method.backbone import Backbone
from effivmt.method.prediction import predict_velocity
from effivmt.pipeline.stages.first_frame import first_frame_key
from effivmt.pipeline.stages.head_classification import HeadSource, heads_key
from effivmt.pipeline.stages.ingestion import ingest, ingest_key
from effivmt.pipeline.stages.motion_mask import mask_key
from effivmt.pipeline.stages.spatial_tuning import tuning_settings
from effivmt.pipeline.stages.text_embedding import embed_texts, text_key
from effivmt.pipeline.workspace import LoadedBackbone, Workspace, open_workspace
from effivmt.store import Key

CPU = torch.device("cpu")


def with_backbone(params, **changes):
    return params.model_copy(update={"backbone": params.backbone.model_copy(update=changes)})


def check(name: str) -> None:
    check_attention(BackboneParams(attention=name), CPU, torch.float32, 12)


@pytest.mark.parametrize("name", ["native", "_native_math"])
def test_one_that_works_passes(name):
    check(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sdpa", r"'sdpa', which is no backend of diffusers; expected one of .*flash, .*native, .*sage"),
        (
            "flash",
            r"is flash but it cannot be used on cpu in float32 \(.*flash-attn>=.*\); set it to native",
        ),
        ("sage", r"is sage but it cannot be used on cpu in float32 \(RuntimeError: .*sageattention>=.*\); set it to"),
        ("_native_cudnn", r"is _native_cudnn but it cannot be used on cpu in float32 \(RuntimeError: .*\); set it to"),
    ],
)
def test_one_that_does_not_is_told_in_one_line(name, told):
    with pytest.raises(ParamsError, match=told) as caught:
        check(name)
    assert "\n" not in str(caught.value)


def test_it_is_told_where_a_run_starts(params, tmp_path):
    params = with_backbone(params, attention="sage")
    with pytest.raises(ParamsError, match=r"backbone\.attention is sage"):
        open_workspace(params, tmp_path / "store")
    work = Workspace(open_workspace(store=tmp_path / "store").store, params)
    for _ in range(2):
        with pytest.raises(ParamsError, match=r"backbone\.attention is sage"):
            _ = work.folder
    assert open_workspace(params, tmp_path / "store", weights=False).folder  # for keys alone


def velocity(transformer) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 4, 2, 4, 4, generator=random), torch.randn(1, 8, 16, generator=random)
    return predict_velocity(transformer, latents, torch.tensor([500.0]), text)


@torch.no_grad()
def test_a_transformer_computes_by_it_whatever_the_default_of_diffusers_is(backbone, backbone_folder, monkeypatch):
    params = backbone.params
    mathematical = Backbone(params.model_copy(update={"attention": "_native_math"})).transformer
    names = {block.attn2.processor._attention_backend for block in mathematical.blocks}
    assert names == {AttentionBackendName._NATIVE_MATH}
    native = velocity(backbone.transformer)
    assert torch.allclose(velocity(mathematical), native, atol=1e-5)
    with attention_backend("_native_math"):
        assert torch.equal(velocity(backbone.transformer), native)


def test_one_without_a_backward_pass_gives_way_where_gradients_are_computed(backbone):
    """As of SageAttention, whose output has no gradient."""
    transformer, params = copy.deepcopy(backbone.transformer), BackboneParams(attention="sage")
    set_attention(transformer, params)
    processor = transformer.blocks[0].attn1.processor
    assert isinstance(processor, ForwardOnlyProcessor) and params.differentiable_attention == "native"
    assert processor._attention_backend is AttentionBackendName.NATIVE
    with torch.no_grad():
        assert processor._attention_backend is AttentionBackendName.SAGE
    assert torch.equal(velocity(transformer), velocity(backbone.transformer))


def test_keys_have_what_changes_their_results_alone(workspace, params, clip):
    ingested, caption = ingest(workspace, clip), embed_texts(workspace, [clip.caption])[clip.caption]

    def settings(**changes) -> tuple[dict, dict]:
        work = Workspace(workspace.store, with_backbone(params, **changes), loaded=LoadedBackbone(weights=False))
        key = heads_key(work, [HeadSource(ingested, caption)])
        return dict(key.params), tuning_settings(work, work.params.temporal)

    def added(**changes) -> list[dict]:
        pairs = zip(settings(**changes), settings(), strict=True)
        return [{name: now[name] for name in now if now[name] != before.get(name)} for now, before in pairs]

    assert not any("attention" in one or "compile" in one or "max_grad_norm" in one for one in settings())
    assert added(attention="flash") == [{"attention": "flash"}] * 2
    assert added(attention="sage") == [{"attention": "sage"}, {}]
    assert added(compile=True) == [{}, {"compile": True}]
    assert added(allow_tf32=True) == [{"precision": "float32, TF32 allowed"}] * 2
    assert added(allow_tf32=True, dtype="bfloat16")[0] == {"precision": "bfloat16"}


def test_tf32_counts_where_no_transformer_computes(workspace, params, clip):
    ingested, chosen = ingest(workspace, clip), clip.model_copy(update={"motion_of": "object"})

    def keys(**changes) -> tuple[Key, ...]:
        work = Workspace(workspace.store, with_backbone(params, **changes), loaded=LoadedBackbone(weights=False))
        own = (ingest_key(work, clip), mask_key(work, chosen, ingested))
        return *own, first_frame_key(work, ingested), text_key(work, clip.caption)

    for plain, allowed in zip(keys(), keys(allow_tf32=True), strict=True):
        assert "allow_tf32" not in plain.params and allowed.params == {**plain.params, "allow_tf32": True}

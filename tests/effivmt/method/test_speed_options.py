"""What makes a GPU faster is refused where it cannot work, in one line; compiled blocks draw the same frames."""

import numpy as np
import pytest
import torch

from effivmt.config import BackboneParams, Params, RenderParams
from effivmt.errors import ParamsError
from effivmt.method.attention_backend import check_attention
from effivmt.method.backbone import Backbone
from effivmt.method.compilation import check_compilation
from effivmt.method.device import make_deterministic
from effivmt.method.rendering import render
from effivmt.pipeline.stages.rendering import sampling_settings
from effivmt.pipeline.stages.spatial_tuning import tuning_settings
from effivmt.pipeline.workspace import Workspace


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cpu", "bfloat16", "is flash, which needs a GPU, but the device is cpu; set it to native"),
        ("cuda", "float32", "is flash, which computes in bfloat16, but backbone.dtype is float32"),
        (
            "cuda",
            "bfloat16",
            r"is flash, for which flash-attn \(pip install flash-attn\) is missing; install",
        ),
    ],
)
def test_an_attention_that_cannot_be_used_is_refused(device: str, dtype: str, message: str) -> None:
    with pytest.raises(ParamsError, match=f"backbone.attention {message}"):
        check_attention("flash", device, dtype)


def test_it_is_refused_when_the_backbone_is_made(backbone: Backbone) -> None:
    with pytest.raises(ParamsError, match=r"backbone.attention is xformers, which needs a GPU"):
        Backbone(BackboneParams(path=str(backbone.folder), attention="xformers", device="cpu"))


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = torch.device("cpu")
    with pytest.raises(ParamsError, match=r"render.compile is true, but the blocks wait on the host"):
        check_compilation(processor, offloaded=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ParamsError, match=r"render.compile is true, which on the processor needs a C.. compiler"):
        check_compilation(processor, offloaded=False)


def test_keys_are_as_before_unless_an_option_is_used(workspace: Workspace, params: Params) -> None:
    plain = params.model_copy(update={"render": RenderParams()})
    assert not {"compile", "guidance_scale_2"} & sampling_settings(plain.render, set()).keys()
    assert sampling_settings(RenderParams(compile=True), set())["compile"] is True
    assert "max_grad_norm" not in tuning_settings(workspace, params.spatial)
    clipped = params.spatial.model_copy(update={"max_grad_norm": 1.0})
    assert tuning_settings(workspace, clipped)["max_grad_norm"] == 1.0
    assert workspace.precision() == "float32"


def test_deterministic_mode_is_torchs_own() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.slow
def test_compiled_blocks_draw_the_same_frames(params: Params, backbone: Backbone) -> None:
    pytest.importorskip("triton" if backbone.device.type == "cuda" else "torch")
    check_compilation(backbone.device, offloaded=False)
    prompt, negative = backbone.encode_texts(["a red circle", ""])
    size, videos = params.ingest, {}
    for compile_it in (False, True, False):
        chosen = params.render.model_copy(update={"compile": compile_it})
        frames = render(backbone, None, prompt, negative, params=chosen, size=size, seed=0)
        videos.setdefault(compile_it, frames)
    assert np.array_equal(frames, videos[False])  # nothing of it stays
    assert np.abs(videos[True].astype(int) - videos[False]).max() <= 1

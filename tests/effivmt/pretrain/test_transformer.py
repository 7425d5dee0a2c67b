"""Joint training of the transformer and the text encoder: padding, falling loss, resuming."""

from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from effivmt.pretrain import prediction, transformer
from effivmt.pretrain.latents import Captioned
from effivmt.pretrain.text import make_text_encoder, make_tokenizer

SMALL = {**transformer.CONFIG, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "ffn_dim": 32}
CAPTIONS = ["a red circle moving left", "a green star on a navy background", "a shape", "a person waving"]


def _models():
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    return WanTransformer3DModel(**SMALL), make_text_encoder(len(tokenizer)), tokenizer


def test_one_biased_padding_token_equals_many() -> None:
    model, _, _ = _models()
    torch.manual_seed(1)
    latents, text = torch.randn(1, 32, 2, 4, 4), torch.randn(1, 3, 128)
    padded = torch.cat([text, torch.zeros(1, 40, 128)], dim=1)
    with torch.no_grad():
        expected = model(latents, torch.tensor([500.0]), padded, return_dict=False)[0]
        pad = prediction.PadBias()
        pad.bias = torch.tensor([0.0, 0.0, 0.0, 40.0]).log().nan_to_num(neginf=0.0)[None, None, None]
        for block in model.blocks:
            block.attn2.set_processor(pad)
        biased = model(latents, torch.tensor([500.0]), padded[:, :4], return_dict=False)[0]
    assert torch.allclose(biased, expected, atol=1e-5)


def test_loss_falls_and_training_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(2)
    clips, stills = (Captioned(torch.randn(4, 32, count, 4, 4) * 0.1, CAPTIONS) for count in (3, 1))
    settings = {"steps": 30, "batch": 4, "frames": (3, 2, 1), "learning_rate": 1e-2, "save_every": 10}
    model, encoder, tokenizer = _models()
    logs = transformer.train_transformer(model, encoder, tokenizer, clips, stills, tmp_path / "a", **settings)
    assert sum(logs["loss"][-5:]) < 0.92 * sum(logs["loss"][:5])
    assert type(model.blocks[0].attn2.processor) is WanAttnProcessor

    again, encoder_again, _ = _models()

    def stop(step: int, _figures: dict[str, float]) -> None:
        if step == 17:
            raise KeyboardInterrupt

    arguments = (tokenizer, clips, stills, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        transformer.train_transformer(again, encoder_again, *arguments, report=stop, **settings)
    again, encoder_again, _ = _models()
    assert transformer.train_transformer(again, encoder_again, *arguments, **settings) == logs
    for one, other in ((model, again), (encoder, encoder_again)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_frames_are_picked_with_their_places() -> None:
    latents = torch.arange(9.0).view(1, 1, 9, 1, 1).expand(5, 2, 9, 3, 3)
    some, places = transformer._some_frames(latents, 4, torch.Generator().manual_seed(0))
    assert some.shape == (5, 2, 4, 3, 3) and torch.equal(some[:, 0, :, 0, 0].double(), places)
    assert (
        (places[:, 0] == 0).all()
        and (places.diff(dim=1) > 0).all()
        and len({tuple(row.tolist()) for row in places}) > 1
    )
    all_frames, stock = transformer._some_frames(latents, 9, torch.Generator())
    assert stock is None and torch.equal(all_frames, latents)


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

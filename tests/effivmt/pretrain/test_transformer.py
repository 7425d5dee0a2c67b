"""Joint training of the transformer and the text encoder: padding, falling loss, resuming, given first frames."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from effivmt.pretrain import prediction, transformer
from effivmt.pretrain.latents import Captioned
from effivmt.pretrain.pool import Pool, Supply, tokens_of
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


def _pools(folder: Path, tokenizer) -> dict[int, Pool]:
    def make(frames: int, numbers: range) -> Captioned:
        latents = [torch.randn(32, frames, 4, 4, generator=torch.Generator().manual_seed(n % 4)) * 0.1 for n in numbers]
        return Captioned(torch.stack(latents).half(), [CAPTIONS[n % 4] for n in numbers])

    supply, cpu = Supply(frames=8, shards=2, uses=3.0), torch.device("cpu")
    return {n: Pool(folder / str(n), partial(make, n), tokenizer, supply, length=n, device=cpu) for n in (1, 4)}


@pytest.mark.parametrize("sparse_of", [None, 4])
def test_loss_falls_and_training_resumes_to_the_same_bytes(tmp_path: Path, sparse_of: int | None) -> None:
    model, encoder, tokenizer = _models()
    settings = {"steps": 30, "batch_frames": 12, "learning_rate": 1e-2, "save_every": 10, "continued": 0.3}
    settings |= {"frames": (1, 4) if sparse_of is None else (1, 3), "sparse_of": sparse_of}
    pools = _pools(tmp_path / "a", tokenizer)
    logs = transformer.train_transformer(model, encoder, tokenizer, pools, folder=tmp_path / "a", **settings)
    assert sum(logs["loss"][-5:]) < 0.92 * sum(logs["loss"][:5])
    assert 0 < sum(logs["given"]) < 15 and set(logs["frames"]) == {1, 4 if sparse_of is None else 3}
    assert type(model.blocks[0].attn2.processor) is WanAttnProcessor

    again, encoder_again, _ = _models()

    def stop(step: int, _figures: dict[str, float]) -> None:
        if step == 17:
            raise KeyboardInterrupt

    arguments = (tokenizer, _pools(tmp_path / "b", tokenizer))
    with pytest.raises(KeyboardInterrupt):
        transformer.train_transformer(again, encoder_again, *arguments, folder=tmp_path / "b", report=stop, **settings)
    again, encoder_again, _ = _models()
    arguments = (tokenizer, _pools(tmp_path / "b", tokenizer))
    assert transformer.train_transformer(again, encoder_again, *arguments, folder=tmp_path / "b", **settings) == logs
    for one, other in ((model, again), (encoder, encoder_again)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_given_first_frame_has_timestep_0_on_its_tokens_and_does_not_count() -> None:
    model, encoder, tokenizer = _models()
    tokens = tokens_of(tokenizer, CAPTIONS[:2])
    clean, noise = torch.randn(2, 2, 32, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    ids, mask, pad_bias = tokens["input_ids"], tokens["attention_mask"], torch.zeros(2)
    sigmas = torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.8, 0.8]])
    calls = []
    model.register_forward_hook(lambda _model, given, out: calls.append((*given, out[0])))
    with torch.no_grad(), prediction.PredictionErrors(model, encoder, nullcontext).prepared() as errors_of:
        errors = errors_of(clean, noise, sigmas, ids, mask, pad_bias)
        others = noise.clone()
        others[:, :, 0] = 7.0
        assert torch.equal(errors_of(clean, others, sigmas, ids, mask, pad_bias), errors)
    noisy, times, _, predicted = calls[0]
    assert torch.equal(noisy[:, :, 0], clean[:, :, 0]) and torch.equal(noisy[0, :, 1:], (clean + noise)[0, :, 1:] / 2)
    assert times.tolist() == [[0.0] * 4 + [500.0] * 8, [0.0] * 4 + [800.0] * 8]
    wanted = (predicted - (noise - clean))[:, :, 1:].square().flatten(1).mean(1)
    torch.testing.assert_close(errors, wanted)


def test_one_timestep_for_all_tokens_predicts_as_one_a_token() -> None:
    model, _, _ = _models()
    latents, text = torch.randn(2, 32, 3, 4, 4), torch.randn(2, 5, 128)
    times = torch.tensor([300.0, 900.0])
    with torch.no_grad():
        one = model(latents, times, text, return_dict=False)[0]
        each = model(latents, times[:, None].expand(-1, 12), text, return_dict=False)[0]
    torch.testing.assert_close(one, each, atol=1e-5, rtol=1e-4)


def test_frames_are_picked_with_their_places() -> None:
    latents = torch.arange(9.0).view(1, 1, 9, 1, 1).expand(5, 2, 9, 3, 3)
    some, places = transformer.some_frames(latents, 4, torch.Generator().manual_seed(0))
    assert some.shape == (5, 2, 4, 3, 3) and torch.equal(some[:, 0, :, 0, 0].double(), places)
    assert (places[:, 0] == 0).all() and (places[:, -1] == 8).all() and (places.diff(dim=1) > 0).all()
    assert len({tuple(row.tolist()) for row in places}) > 1
    all_frames, stock = transformer.some_frames(latents, 9, torch.Generator())
    assert stock is None and torch.equal(all_frames, latents)


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

"""Head scores measure the attention that the transformer really has, and planted heads are labelled as planted."""

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from torch.nn import functional as F

from effivmt.config import HeadsParams
from effivmt.errors import EffiVMTError
from effivmt.method import head_scores
from effivmt.method.head_scores import attention_scores, queries_and_keys
from effivmt.method.heads import label_heads

ALPHA = 1.25  # the paper's
TEXT_TOKENS = 7
GRIDS = [(3, 4, 6), (2, 6, 4), (5, 8, 6)]  # latent frames, height, width; tokens are 2 x 2


def make_transformer(seed: int = 0, *, layers: int = 2, count: int = 4, head_width: int = 12) -> WanTransformer3DModel:
    """A random transformer with random query and key norms."""
    torch.manual_seed(seed)
    size = {"text_dim": 8, "freq_dim": 8, "ffn_dim": 16, "in_channels": 4, "out_channels": 4, "rope_max_seq_len": 64}
    transformer = WanTransformer3DModel(
        num_layers=layers, num_attention_heads=count, attention_head_dim=head_width, **size
    )
    for block in transformer.blocks:
        for norm in (block.attn1.norm_q, block.attn1.norm_k):
            torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    return transformer.eval().requires_grad_(False)


def make_inputs(grid: tuple[int, int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noised latents, timestep and text."""
    random = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 4, *grid, generator=random)
    return latents, torch.tensor([500.0]), torch.randn(1, TEXT_TOKENS, 8, generator=random)


def record_attention(monkeypatch, transformer, inputs) -> list[tuple[torch.Tensor, ...]]:
    """(q, k, v, output) of every self-attention, as the kernel of torch receives and returns them: (N, S, D) each."""
    calls, kernel = [], F.scaled_dot_product_attention

    def recording(query, key, value, **kwargs):
        out = kernel(query, key, value, **kwargs)
        if key.shape[-2] == query.shape[-2]:
            calls.append((query[0], key[0], value[0], out[0]))
        return out

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", recording)
        transformer(*inputs)
    return calls


def nearest(place: int, places, count: int, *, right_first: bool) -> list[int]:
    """The `count` of `places` that are nearest to `place`."""
    side = -1 if right_first else 1
    return sorted(places, key=lambda p: (abs(p - place), side * p))[:count]


def explicit_templates(frames: int, frame_tokens: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The spatial and the temporal template as bool (S, S), token by token."""
    tokens = frames * frame_tokens
    spatial, temporal = torch.zeros(2, tokens, tokens, dtype=torch.bool)
    for query in range(tokens):
        own_frame, place = divmod(query, frame_tokens)
        for frame in set(range(frames)) - {own_frame}:
            for key in nearest(place, range(frame_tokens), width, right_first=False):
                temporal[query, frame * frame_tokens + key] = True
        others = [t for t in range(tokens) if t != query and not temporal[query, t]]
        spatial[query, nearest(query, others, (frames - 1) * width, right_first=True)] = True
    return spatial, temporal


class TestScores:
    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("band", [0.08, 0.3, 0.5, None])
    def test_equal_the_full_map_under_explicit_templates(self, monkeypatch, grid, band):
        transformer, inputs = make_transformer(), make_inputs(grid)
        frames, frame_tokens = grid[0], grid[1] * grid[2] // 4
        width = (
            min(2 * frame_tokens // frames, frame_tokens - 1) if band is None else max(1, round(band * frame_tokens))
        )
        templates = explicit_templates(frames, frame_tokens, width)
        expected = []
        for q, k, _, _ in record_attention(monkeypatch, transformer, inputs):
            attention = (q.double() @ k.double().transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
            expected.append([(attention * template).sum(-1).mean(-1).numpy() for template in templates])
        found = attention_scores(transformer, *inputs, band=band, query_rows=10**6)
        error = np.abs(np.stack(found, axis=1) - np.array(expected)).max()
        print(f"{grid} band {band}: scores differ from the full map by at most {error:.1e}")
        assert error < 1e-6
        assert found[0].shape == (2, 4) and found[0].dtype == np.float64

    @pytest.mark.parametrize("grid", GRIDS)
    def test_of_outputs_equal_the_kernels_under_explicit_masks(self, monkeypatch, grid):
        transformer, inputs = make_transformer(), make_inputs(grid)
        frames, frame_tokens = grid[0], grid[1] * grid[2] // 4
        masks = explicit_templates(frames, frame_tokens, 2)
        expected = []
        for q, k, v, out in record_attention(monkeypatch, transformer, inputs):
            errors = []
            for mask in masks:
                seen = mask | torch.eye(len(mask), dtype=torch.bool)
                seen[:, :frame_tokens] = True
                part = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=seen)
                errors.append((part - out).square().sum((1, 2)) / out.double().square().sum((1, 2)))
            expected.append([(1 / (1 + error)).numpy() for error in errors])
        made = {"band": 2 / frame_tokens, "criterion": "output_error"}
        found = attention_scores(transformer, *inputs, **made, query_rows=10**6)
        assert np.abs(np.stack(found, axis=1) - np.array(expected)).max() < 1e-6
        monkeypatch.setattr(head_scores, "_BLOCK_BYTES", 1)
        blocks = attention_scores(transformer, *inputs, **made, query_rows=10**6)
        assert np.allclose(found, blocks, atol=1e-7, rtol=0)

    def test_watched_q_and_k_are_those_of_the_attention(self, monkeypatch):
        transformer, inputs = make_transformer(), make_inputs((3, 4, 6))
        watched, hidden = [], []
        hooks = [
            block.attn1.register_forward_hook(lambda module, args, out: hidden.append((module, args[0], out)))
            for block in transformer.blocks
        ]
        with head_scores._attention_hooks(transformer, lambda *call: watched.append(queries_and_keys(*call))):
            calls = record_attention(monkeypatch, transformer, inputs)
        for hook in hooks:
            hook.remove()
        assert len(watched) == len(calls) == len(hidden) == 2
        for (q, k), (true_q, true_k, _, _), (attention, x, out) in zip(watched, calls, hidden, strict=True):
            q, k = q.transpose(0, 1), k.transpose(0, 1)
            assert torch.equal(q, true_q) and torch.equal(k, true_k)
            v = attention.to_v(x)[0].unflatten(1, (attention.heads, -1)).transpose(0, 1)
            again = attention.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
            assert torch.allclose(again, out[0], atol=1e-6)

    def test_blocks_of_rows_give_what_one_block_gives(self, monkeypatch):
        transformer, inputs = make_transformer(), make_inputs((5, 8, 6))
        whole = attention_scores(transformer, *inputs, band=0.2, query_rows=10**6)
        monkeypatch.setattr(head_scores, "_BLOCK_BYTES", 4 * 60 * 4 * 7)  # 7 rows of 60 keys, 4 heads: 8 blocks, a rest
        blocks = attention_scores(transformer, *inputs, band=0.2, query_rows=10**6)
        monkeypatch.setattr(head_scores, "_BLOCK_BYTES", 1)
        single = attention_scores(transformer, *inputs, band=0.2, query_rows=10**6)
        assert np.allclose(whole, blocks, atol=1e-7, rtol=0) and np.allclose(whole, single, atol=1e-7, rtol=0)

    def test_leave_no_hook_behind(self):
        transformer, inputs = make_transformer(), make_inputs((2, 4, 4))
        attention_scores(transformer, *inputs, band=0.1, query_rows=8)
        with pytest.raises(RuntimeError):
            attention_scores(transformer, inputs[0], inputs[1], inputs[2][..., :3], band=0.1, query_rows=8)
        assert not any(block.attn1._forward_pre_hooks for block in transformer.blocks)

    def test_one_frame_is_refused(self):
        with pytest.raises(ValueError, match="1 latent frame; expected at least 2"):
            attention_scores(make_transformer(), *make_inputs((1, 4, 4)), band=0.1, query_rows=8)


class TestTemplates:
    @pytest.mark.parametrize(("frames", "frame_tokens", "width"), [(2, 6, 5), (3, 6, 4), (4, 16, 3), (25, 12, 1)])
    def test_have_equal_area_share_nothing_and_hold_what_they_should(self, frames, frame_tokens, width):
        rows = torch.arange(frames * frame_tokens)
        temporal = head_scores.temporal_template(rows, frames, frame_tokens, width)
        spatial = head_scores.spatial_template(rows, temporal, len(rows))
        assert not (spatial[:, :, None] == temporal[:, None]).any()
        assert spatial.shape == temporal.shape == (len(rows), (frames - 1) * width)
        for keys in (spatial, temporal):
            assert all(len(set(row.tolist())) == keys.shape[1] for row in keys)
            assert keys.min() >= 0 and keys.max() < frames * frame_tokens
            assert not (keys == rows[:, None]).any()
        assert not (temporal // frame_tokens == (rows // frame_tokens)[:, None]).any()
        for query, keys, others in zip(rows.tolist(), spatial.tolist(), temporal.tolist(), strict=True):
            outside = set(rows.tolist()) - set(keys) - set(others) - {query}
            assert max(abs(k - query) for k in keys) <= min((abs(o - query) for o in outside), default=10**9)

    @pytest.mark.parametrize("frames", [2, 3, 5, 9, 21, 25, 41])
    def test_default_width_is_two_frames_of_tokens_shared_out_and_fits(self, frames):
        width = head_scores.band_tokens(frames, 64, None)
        assert width == min(max(1, 128 // frames), 63)
        rows = torch.arange(frames * 64)
        temporal = head_scores.temporal_template(rows, frames, 64, width)
        assert not (head_scores.spatial_template(rows, temporal, len(rows))[:, :, None] == temporal[:, None]).any()

    def test_a_band_that_leaves_no_room_is_refused(self):
        assert head_scores.band_tokens(21, 64, 0.5) == 32
        with pytest.raises(EffiVMTError, match=r"heads\.band is 0\.6, 38 of .* 21 latent frames .* only up to 33"):
            head_scores.band_tokens(21, 64, 0.6)

    def test_rows_are_spread_one_to_a_stretch(self):
        assert torch.equal(head_scores.query_rows_of(20, 20), torch.arange(20))
        assert torch.equal(head_scores.query_rows_of(20, 50), torch.arange(20))
        for tokens, count in ((1000, 256), (32760, 256), (257, 256), (10, 3)):
            rows = head_scores.query_rows_of(tokens, count)
            assert len(rows) == count and rows.dtype == torch.int64
            ends = torch.arange(count + 1).double() * tokens / count
            assert (rows >= ends[:-1].floor()).all() and (rows < ends[1:]).all()


class TestPlantedHeads:
    """Queries and keys that are one constant vector, so that RoPE alone decides: energy in the pairs of one axis makes
    a head attend where that axis agrees.
    """

    KINDS = ("time", "place", "place", "time", "place", "time", "time", "place")

    def plant(self) -> WanTransformer3DModel:
        transformer = make_transformer()
        for layer, block in enumerate(transformer.blocks):
            attention, bias = block.attn1, torch.zeros(4, 12)
            for head, kind in enumerate(self.KINDS[4 * layer : 4 * layer + 4]):
                pairs = (0,) if kind == "time" else (4, 8)  # the fastest pair of the time axis, or of rows and columns
                for channel in pairs:
                    bias[head, channel] = 1 / len(pairs) ** 0.5
            for projection, norm in ((attention.to_q, attention.norm_q), (attention.to_k, attention.norm_k)):
                projection.weight.zero_()
                projection.bias.copy_(bias.flatten())
                norm.weight.fill_(5.0)
        return transformer

    def test_attend_as_planted_and_are_labelled_so(self, monkeypatch):
        transformer, inputs = self.plant(), make_inputs((4, 8, 8))
        for layer, (q, k, _, _) in enumerate(record_attention(monkeypatch, transformer, inputs)):
            attention = (q @ k.transpose(1, 2) / 12**0.5).softmax(-1).unflatten(1, (4, 16)).unflatten(3, (4, 16))
            for head, kind in enumerate(self.KINDS[4 * layer : 4 * layer + 4]):
                axes = "fpfq->" if kind == "time" else "fpgp->"
                assert torch.einsum(axes, attention[head]) / 64 > 0.99
        expected = np.array([["temporal" if kind == "place" else "spatial" for kind in self.KINDS]]).reshape(2, 4)
        for criterion, alpha in (("attention_mass", ALPHA), ("output_error", 1.0)):
            spatial, temporal = attention_scores(transformer, *inputs, band=0.25, query_rows=10**6, criterion=criterion)
            print(f"planted, {criterion}: {spatial.round(3).tolist()}, temporal {temporal.round(3).tolist()}")
            assert (label_heads(spatial, temporal, alpha).branch == expected).all()

    def test_sampled_labels_agree_with_exact_ones(self):
        """48 heads that attend by place, by time and by content, more or less sharply, on three inputs."""
        params, tokens, layers, count = HeadsParams(alpha=ALPHA), 1536, 4, 12
        random = torch.Generator().manual_seed(1)
        transformer = make_transformer(1, layers=layers, count=count)
        for block in transformer.blocks:
            bias = torch.randn(count, 12, generator=random) * torch.rand(count, 1, generator=random) * 3
            for projection in (block.attn1.to_q, block.attn1.to_k):
                projection.weight.mul_(torch.rand(count, 1, 1, generator=random).expand(-1, 12, -1).flatten(0, 1) * 4)
                projection.bias.copy_((bias + 0.5 * torch.randn(count, 12, generator=random)).flatten())
            for norm in (block.attn1.norm_q, block.attn1.norm_k):
                norm.weight.copy_((torch.rand(count, 1, generator=random) * 3).expand(-1, 12).flatten())
        agreed, ratios, error = [], [], 0.0
        for seed in range(3):
            inputs = make_inputs((6, 32, 32), seed)
            exact = attention_scores(transformer, *inputs, band=params.band, query_rows=tokens)
            sampled = attention_scores(transformer, *inputs, band=params.band, query_rows=params.query_rows)
            assert not np.array_equal(exact, sampled)
            labels = [label_heads(*scores, params.alpha).is_temporal for scores in (exact, sampled)]
            agreed.append(labels[0] == labels[1])
            ratios.append(exact[0] / (params.alpha * exact[1]))
            error = max(error, np.abs(np.array(exact) - np.array(sampled)).max())
        agreement, close = np.mean(agreed), np.abs(np.log(ratios)) < 0.1
        temporal_share = np.mean(np.array(ratios) < 1)
        print(f"sampled labels agree on {agreement:.4f} of {np.size(agreed)}, {close.sum()} of them near the border,")
        print(f"{temporal_share:.2f} of them temporal; the scores differ by at most {error:.4f}")
        assert close.sum() >= 5 and 0.2 < temporal_share < 0.8
        assert agreement >= 0.98

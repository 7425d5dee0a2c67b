"""Adaptive RoPE equals diffusers' at whole positions, and the paper's formula and the true times between them."""

import copy
import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from effivmt.method.rope import rotary_embedding, rotate, sampled_indices, time_positions, time_positions_of

HEAD_WIDTHS = [12, 32, 64, 128]  # 128: Wan 2.1, 1.3B and 14B


def make_rope(head_width: int = 128) -> WanRotaryPosEmbed:
    return WanRotaryPosEmbed(head_width, (1, 2, 2), 1024)


def embed(positions: list[float], rope: WanRotaryPosEmbed, height: int = 1, width: int = 1):
    return rotary_embedding(rope, torch.tensor([positions], dtype=torch.float64), height, width)


class TestRotaryEmbedding:
    @pytest.mark.parametrize("head_width", HEAD_WIDTHS)
    @pytest.mark.parametrize("grid", [(1, 2, 2), (3, 4, 6), (21, 60, 104), (9, 10, 4)])
    def test_whole_positions_equal_diffusers_bit_for_bit(self, head_width, grid):
        frames, height, width = grid
        rope = make_rope(head_width)
        stock = rope(torch.empty(1, 1, *grid, device="meta"))
        ours = rotary_embedding(rope, torch.arange(frames)[None], height // 2, width // 2)
        for a, b in zip(stock, ours, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)

    @pytest.mark.parametrize("offset", [0, 7, 900])
    def test_any_whole_positions_are_rows_of_the_table(self, offset):
        rope = make_rope()
        cos, sin = embed([offset + 5.0, offset + 0.0, offset + 99.0], rope)
        rows = [offset + 5, offset, offset + 99]
        assert torch.equal(cos[0, :, 0, : rope.t_dim], rope.freqs_cos[rows, : rope.t_dim])
        assert torch.equal(sin[0, :, 0, : rope.t_dim], rope.freqs_sin[rows, : rope.t_dim])

    def test_fractional_positions_turn_by_fractional_angles(self):
        """Written out as complex numbers: pair j of the time axis turns by p * 10000^(-2j/t_dim)."""
        rope, random = make_rope(32), torch.Generator().manual_seed(0)
        x = torch.randn(1, 3, 2, 32, generator=random, dtype=torch.float64)
        positions = [0.5, 4.2, 16.8]
        turned = rotate(x, *embed(positions, rope))
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        speed = 10000.0 ** (-torch.arange(0, rope.t_dim, 2, dtype=torch.float64) / rope.t_dim)
        angles = torch.zeros(3, 16, dtype=torch.float64)
        angles[:, : rope.t_dim // 2] = torch.tensor(positions, dtype=torch.float64)[:, None] * speed
        expected = torch.view_as_real(pairs * torch.exp(1j * angles)[None, :, None]).flatten(-2)
        assert torch.allclose(turned, expected, atol=1e-6)

    def test_only_the_difference_of_positions_counts(self):
        rope, random = make_rope(), torch.Generator().manual_seed(0)
        q, k = torch.randn(2, 1, 1, 1, 128, generator=random)

        def product(at_q: float, at_k: float) -> float:
            return (rotate(q, *embed([at_q], rope)) * rotate(k, *embed([at_k], rope))).sum().item()

        assert product(9.75, 4.25) == pytest.approx(product(5.5, 0.0), abs=1e-4)
        assert product(9.75, 4.25) != pytest.approx(product(5.0, 0.0), abs=1e-2)
        between = [product(p, 0.0) for p in (5.0, 5.25, 5.5, 5.75, 6.0)]
        assert max(abs(a - b) for a, b in pairwise(between)) < abs(q * k).sum() / 4

    def test_a_batch_of_positions_equals_one_at_a_time(self):
        rope = make_rope()
        positions = torch.tensor([[0.0, 4.2, 8.4], [1.0, 5.0, 9.0], [0.5, 0.6, 20.0]], dtype=torch.float64)
        batch = rotary_embedding(rope, positions, 2, 3)
        for index, row in enumerate(positions):
            single = rotary_embedding(rope, row[None], 2, 3)
            assert all(torch.equal(b[index : index + 1], s) for b, s in zip(batch, single, strict=True))


class TestTimePositionsOf:
    @pytest.fixture
    def transformer(self, backbone):
        return copy.deepcopy(backbone.transformer)

    @pytest.fixture
    def inputs(self):
        random = torch.Generator().manual_seed(0)
        return (
            torch.randn(2, 4, 3, 4, 6, generator=random),
            torch.tensor([700.0, 300.0]),
            torch.randn(2, 16, 16, generator=random),
        )

    def test_whole_positions_leave_the_output_bit_identical(self, transformer, inputs):
        stock = transformer(*inputs).sample
        with time_positions_of(transformer) as rope:
            assert torch.equal(transformer(*inputs).sample, stock)
            rope.positions = torch.arange(3.0).expand(2, -1)
            assert torch.equal(transformer(*inputs).sample, stock)
            rope.positions = 4.2 * torch.arange(3.0).expand(2, -1)
            assert (transformer(*inputs).sample - stock).abs().max() > 1e-5

    def test_a_batch_of_positions_equals_separate_forward_passes(self, transformer, inputs):
        positions = torch.tensor([[0.0, 1.8, 3.6], [0.4, 5.0, 8.0]], dtype=torch.float64)
        with time_positions_of(transformer) as rope:
            rope.positions = positions
            both = transformer(*inputs).sample
            for i in range(2):
                rope.positions = positions[i : i + 1]
                one = transformer(*(x[i : i + 1] for x in inputs)).sample
                assert torch.allclose(both[i : i + 1], one, atol=1e-6)
                rope.positions = positions[1 - i : 2 - i]
                other = transformer(*(x[i : i + 1] for x in inputs)).sample
                assert (both[i : i + 1] - other).abs().max() > 1e-5

    def test_the_stock_embedding_is_back_afterwards(self, transformer, inputs):
        stock, keys = transformer.rope, list(transformer.state_dict())
        with pytest.raises(RuntimeError), time_positions_of(transformer):
            assert list(transformer.state_dict()) == keys
            raise RuntimeError
        assert transformer.rope is stock


class TestTimePositions:
    def test_none_counts(self):
        indices = sampled_indices(81, 17, 0.3)
        assert time_positions("none", indices, 81, latent=False).tolist() == [0, 1, 2, 3, 4]
        assert time_positions("none", indices, 81, latent=True).tolist() == list(range(17))

    @pytest.mark.parametrize(("num_frames", "sampled"), [(21, 5), (9, 5), (21, 21), (81, 17)])
    def test_paper_formula_reduces_to_ours(self, num_frames, sampled):
        indices = sampled_indices(num_frames, sampled, 0.5)
        found = time_positions("paper", indices, num_frames, latent=True)
        formula = [num_frames / 2 + num_frames / sampled * (i - sampled / 2) for i in range(sampled)]
        assert found.tolist() == pytest.approx(formula, abs=1e-9)

    def test_paper_examples_of_17_of_81(self):
        latent = time_positions("paper", sampled_indices(21, 5, 0.0), 21, latent=True)
        assert latent.tolist() == pytest.approx([0, 4.2, 8.4, 12.6, 16.8])
        pixel = time_positions("paper", sampled_indices(81, 17, 0.0), 81, latent=False)
        assert pixel.diff().tolist() == pytest.approx([81 / 17] * 4) and pixel[0] == 0

    def test_aligned_is_where_the_frames_truly_stand(self):
        evenly = torch.linspace(0, 80, 17).round().long()
        assert time_positions("aligned", evenly, 81, latent=False).tolist() == [0, 5, 10, 15, 20]
        assert time_positions("aligned", evenly + 2, 83, latent=False).tolist() == [0.5, 5.5, 10.5, 15.5, 20.5]
        assert time_positions("aligned", torch.arange(17), 17, latent=False).tolist() == [0, 1, 2, 3, 4]
        assert time_positions("aligned", torch.tensor([1, 5, 9]), 21, latent=True).tolist() == [1, 5, 9]

    @pytest.mark.parametrize("mode", ["none", "paper", "aligned"])
    def test_all_modes_agree_without_sampling(self, mode):
        for latent in (True, False):
            found = time_positions(mode, torch.arange(21), 21, latent=latent)
            assert found.tolist() == list(range(21 if latent else 6)) and found.dtype == torch.float64


class TestSampledIndices:
    def test_equal_the_formula_in_exact_arithmetic(self):
        for num_frames in (5, 7, 9, 21, 33, 81):
            for sampled in range(1, min(num_frames, 21) + 1):
                for phases in (1, 4, 5, 7, 16):
                    for phase in range(phases):
                        found = sampled_indices(num_frames, sampled, phase / phases).tolist()
                        exact = [(i + Fraction(phase, phases)) * num_frames / sampled for i in range(sampled)]
                        assert found == [math.floor(e) for e in exact], (num_frames, sampled, phases, phase)

    @pytest.mark.parametrize(("num_frames", "sampled", "phases"), [(81, 17, 5), (21, 5, 5), (33, 17, 4), (9, 5, 4)])
    def test_enough_phases_see_every_frame(self, num_frames, sampled, phases):
        seen = {int(i) for p in range(phases) for i in sampled_indices(num_frames, sampled, p / phases)}
        assert seen == set(range(num_frames))

    def test_phases_shift_the_grid_from_its_start(self):
        assert [sampled_indices(21, 5, p / 4).tolist() for p in range(4)] == [
            [0, 4, 8, 12, 16],
            [1, 5, 9, 13, 17],
            [2, 6, 10, 14, 18],
            [3, 7, 11, 15, 19],
        ]
        assert sampled_indices(7, 7, 0.9).tolist() == list(range(7))
        assert sampled_indices(7, 7, 0.0).dtype == torch.int64

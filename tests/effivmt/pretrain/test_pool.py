"""A pool holds what the samples drawn so far say, keeps its shards on disk and draws nothing twice."""

from pathlib import Path

import torch

from effivmt.pretrain.latents import Captioned
from effivmt.pretrain.pool import Pool, Supply, tokens_of
from effivmt.pretrain.text import make_tokenizer

CPU = torch.device("cpu")


def _pool(folder: Path, made: list[range], *, leave_out: int | None = None) -> Pool:
    def make(numbers: range) -> Captioned:
        made.append(numbers)
        kept = [number for number in numbers if number != leave_out]
        latents = torch.tensor(kept).view(-1, 1, 1, 1, 1).half()
        return Captioned(latents, ["a red circle" if number % 2 else "a star" for number in kept])

    return Pool(folder, make, make_tokenizer(), Supply(frames=13, shards=3, uses=2.5), length=3, device=CPU)


def _numbers(pool: Pool, used: float) -> list[int]:
    return pool.after(used).latents.flatten().int().tolist()


def test_the_oldest_shard_makes_way_when_its_clips_have_been_used(tmp_path: Path) -> None:
    made: list[range] = []
    pool = _pool(tmp_path, made)
    assert _numbers(pool, 0) == _numbers(pool, 9.9) == list(range(12))
    assert _numbers(pool, 10) == list(range(4, 16)) and len(made) == 4
    assert _numbers(pool, 55) == list(range(20, 32))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["000005", "000006", "000007"]


def test_captions_come_as_tokens_with_their_latents(tmp_path: Path) -> None:
    examples = _pool(tmp_path, []).after(10)
    tokens = tokens_of(make_tokenizer(), ["a star", "a red circle"])
    for position, number in enumerate(range(4, 16)):
        assert torch.equal(examples.ids[position], tokens["input_ids"][number % 2])
        assert torch.equal(examples.mask[position], tokens["attention_mask"][number % 2])


def test_a_second_pool_takes_what_lies_in_the_folder(tmp_path: Path) -> None:
    made: list[range] = []
    first = _pool(tmp_path, made).after(10)
    second = _pool(tmp_path, made).after(10)
    assert len(made) == 3 and torch.equal(first.latents, second.latents) and torch.equal(first.ids, second.ids)
    assert _numbers(_pool(tmp_path, made), 0) == list(range(12)) and made[3:] == [range(4)]


def test_numbers_may_be_left_out(tmp_path: Path) -> None:
    assert _numbers(_pool(tmp_path, [], leave_out=5), 0) == [number for number in range(12) if number != 5]

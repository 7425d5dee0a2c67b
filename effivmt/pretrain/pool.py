"""Captioned latents that are renewed while a model trains on them, so that it sees more clips, not more passes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from effivmt.pretrain.latents import Captioned
from effivmt.pretrain.text import MAX_TOKENS


@dataclass(frozen=True)
class Supply:
    """The size of a pool: `shards` shards of `frames` latent frames each, in clips of one length.

    The oldest shard is replaced after each clip has been used `uses` times on average; a sparse sample counts as its
    share of the clip.
    """

    frames: int
    shards: int
    uses: float


@dataclass(frozen=True, eq=False)
class Examples:
    """latents float16 (M, C, F, h, w) and their captions' tokens, ids and mask (M, L), on one device."""

    latents: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor


class Pool:
    """Clips or stills of `length` latent frames, made by `make` for a range of numbers and kept in `folder`.

    The number of samples drawn so far decides which shards it holds, so a resumed run uses the same clips. `make` may
    leave numbers out; it returns normalised latents.
    """

    def __init__(
        self,
        folder: Path,
        make: Callable[[range], Captioned],
        tokenizer: PreTrainedTokenizerBase,
        supply: Supply,
        *,
        length: int,
        device: torch.device,
    ) -> None:
        self.folder, self._make, self._tokenizer, self._supply = folder, make, tokenizer, supply
        self._size = max(1, supply.frames // length)
        self._device = device
        self._held: dict[int, Captioned] = {}
        self._examples: Examples | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def after(self, used: float) -> Examples:
        """The examples of the pool after its clips have been used `used` times in all."""
        oldest = int(used / (self._supply.uses * self._size))
        wanted = range(oldest, oldest + self._supply.shards)
        if self._examples is None or list(self._held) != list(wanted):
            for path in self.folder.glob("*.safetensors"):
                if int(path.stem) not in wanted:
                    path.unlink()
            self._held = {number: self._held.get(number) or self._shard(number) for number in wanted}
            self._examples = self._join()
        return self._examples

    def _shard(self, number: int) -> Captioned:
        path = self.folder / f"{number:06d}.safetensors"
        if not path.exists():
            made = self._make(range(number * self._size, (number + 1) * self._size))
            temporary = path.with_suffix(".partial")
            tensors, metadata = {"latents": made.latents.contiguous()}, {"captions": json.dumps(made.captions)}
            save_file(tensors, temporary, metadata=metadata)
            temporary.replace(path)
        with safe_open(path, framework="pt") as file:
            return Captioned(load_file(path)["latents"], json.loads(file.metadata()["captions"]))

    def _join(self) -> Examples:
        latents = torch.cat([shard.latents for shard in self._held.values()])
        captions = [caption for shard in self._held.values() for caption in shard.captions]
        tokens = tokens_of(self._tokenizer, captions)
        return Examples(*(part.to(self._device) for part in (latents, tokens["input_ids"], tokens["attention_mask"])))


def tokens_of(tokenizer: PreTrainedTokenizerBase, captions: list[str]) -> dict[str, torch.Tensor]:
    """ "input_ids" and "attention_mask", int64 (M, L), of captions padded or cut to `MAX_TOKENS`."""
    return tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")

"""Counted randomness: every draw's generator follows from (seed, names, step), so a resumed run is the same run."""

import hashlib

import torch


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded from `seed` and the names of what it draws for: ("temporal", clip digest, step).

    It draws on `device`; another kind of device draws other numbers.
    """
    digest = hashlib.sha256("\0".join(map(str, (seed, *names))).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)

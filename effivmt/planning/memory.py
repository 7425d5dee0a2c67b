"""The choices of a run, found without torch where the store remembers them or there is no GPU to fit into."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from effivmt.config import Params
from effivmt.method.experts import ONLY, Expert
from effivmt.method.memory_choices import MemoryChoices
from effivmt.planning.machine import gpu_gigabytes
from effivmt.store.digests import canonical_json, sha256_bytes
from effivmt.store.memo import read_memo, write_memo
from effivmt.versions import __version__

_PARTS = ("transformer", "vae", "text_encoder")


def budget(params: Params) -> int | None:
    """GiB that the stages must fit into: `backbone.memory`, else the GPU's own; None on a processor."""
    asked = params.backbone.memory
    return gpu_gigabytes(params.backbone.device) if asked == "auto" else asked


def choose_memory(params: Params, folder: Path, memo: Path, experts: Sequence[Expert] = (ONLY,)) -> MemoryChoices:
    """What a run does to fit into its budget, with the backbone of these transformers in `folder`.

    `memo` is a file that remembers it. DamageError, once, where `memo` was damaged.
    """
    gigabytes = budget(params)
    if gigabytes is None:
        return MemoryChoices()
    read = params.model_dump(
        mode="json",
        exclude={
            "seed": True,
            "evaluate": True,
            "backbone": {"path", "revision", "device", "attention", "compile", "allow_tf32"},
        },
    )
    configs = [(folder / part / "config.json").read_text(encoding="utf-8") for part in _PARTS]
    key = sha256_bytes(canonical_json([__version__, gigabytes, read, len(experts), configs]))
    known = read_memo(memo)
    if key not in known:
        from effivmt.planning.choosing import choose  # it takes torch, and seconds
        from effivmt.planning.stages import StageCounter

        made = asdict(choose(StageCounter(folder, params, experts), gigabytes))
        known |= {key: ",".join(name for name, chosen in made.items() if chosen)}
        write_memo(memo, known)
    return MemoryChoices(**dict.fromkeys(filter(None, known[key].split(",")), True))

"""What the benchmark compares: peers, ablations, controls and sweeps, each with a name and its difference from EffiVMT.

A variant of EffiVMT is its params with some overridden; a peer has a module of its own in
`effivmt.benchmark.baselines`, or is a user's file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from effivmt.benchmark.peers import PEERS, is_of_peer, tunes
from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import ParamsError
from effivmt.params_file import load_params

Kind = Literal["method", "variant", "ablation", "control", "sweep"]
Maker = Literal["effivmt", "backbone", "motion_director", "ditflow", "smm", "flow_motion", "reconstruction", "file"]
OURS = "effivmt"
ALL = "all"


@dataclass(frozen=True)
class Method:
    """One way of making the videos.

    overrides: `section.key=value`, applied after the user's; maker: the code that makes the videos; against: the method
    that differs from this one in a single point and is subtracted in its paired differences; file: the user's file that
    has the code, where the maker is `file`.
    """

    name: str
    title: str
    kind: Kind
    overrides: tuple[str, ...] = ()
    maker: Maker = "effivmt"
    against: str = OURS
    file: Path | None = None

    @property
    def peer(self) -> str | None:
        """What `effivmt.benchmark.peers` knows its code by, a name or the path of a file; None where it is no peer."""
        if self.file is not None:
            return str(self.file)
        return self.maker if self.maker in PEERS else None

    def params(self, source: str | Path | None, overrides: Sequence[str] = ()) -> Params:
        """The params of a file or preset with the user's overrides, then its own; ParamsError names a wrong field."""
        return load_params(source, (*overrides, *self.overrides, "render.baseline=false"))


_EVERY_STEP = "render.motion_boundary=0"
"""As the authors of the peers render; what has no motion LoRA does not read it, and its kept rows stay valid so."""


def _peers() -> list[Method]:
    as_authors = ("render.appearance_strength=0", _EVERY_STEP)
    return [
        Method(OURS, "EffiVMT", "method"),
        Method("backbone", "Backbone alone", "method", (_EVERY_STEP,), maker="backbone"),
        Method("motion-director", "MotionDirector", "method", as_authors, maker="motion_director"),
        Method("two-stage", "Two-stage LoRA, all heads", "method", ("heads.split=none",)),
        Method("ditflow", "DiTFlow", "method", (_EVERY_STEP,), maker="ditflow"),
        Method("smm", "SMM", "method", (_EVERY_STEP,), maker="smm"),
        Method("flow-motion", "FlowMotion", "method", (_EVERY_STEP,), maker="flow_motion"),
    ]


def _ablations() -> list[Method]:
    pixel, latent, dense = (f"sampling.mode={mode}" for mode in ("pixel", "latent", "dense"))
    none, paper, aligned = (f"temporal.rope={mode}" for mode in ("none", "paper", "aligned"))
    together, clip_only = "heads.split=none", "spatial.steps=0"
    return [
        Method("without-decoupling", "Without decoupling", "ablation", (together,)),
        Method("without-motion-loss", "Without motion loss", "ablation", ("temporal.motion_weight=0",)),
        Method("without-adaptive-rope", "Without adaptive RoPE", "ablation", (none,)),
        Method("paper-rope", "Paper's RoPE positions", "ablation", (paper,)),
        Method("dense", "Without sparse sampling", "ablation", (dense,)),
        Method("latent", "Latent frames at even distances", "ablation", (latent, aligned)),
        Method("pixel", "Pixel frames sampled, aligned RoPE", "ablation", (pixel, aligned)),
        Method("pixel-paper", "Pixel frames sampled, paper's RoPE", "ablation", (pixel, paper), against="pixel"),
        Method("pixel-none", "Pixel frames sampled, no adaptive RoPE", "ablation", (pixel, none), against="pixel"),
        Method("all-off", "All three off", "ablation", (together, none, dense)),
        Method("clip-lora", "Clip LoRA: one LoRA, all heads, clip only", "ablation", (together, clip_only)),
        Method("fast", "Fast: temporal heads, clip only", "ablation", (clip_only,)),
        Method("every-step", "Motion LoRA in every sampling step", "ablation", (_EVERY_STEP,)),
    ]


def _controls() -> list[Method]:
    return [
        Method(
            "reconstruction", "Reference through the autoencoder", "control", (_EVERY_STEP,), maker="reconstruction"
        ),
        *(
            Method(f"{split}-split", f"{split.capitalize()} head split", "control", (f"heads.split={split}",))
            for split in ("random", "swapped")
        ),
        Method("sparse-videogen-split", "Sparse VideoGen's head split", "control", ("heads.criterion=output_error",)),
        Method(
            "motion-director-high-noise",
            "MotionDirector with EffiVMT's motion boundary",
            "control",
            ("render.appearance_strength=0",),
            maker="motion_director",
            against="motion-director",
        ),
    ]


def _sweeps() -> list[Method]:
    ranks = [(f"Rank {rank}", (f"spatial.rank={rank}", f"temporal.rank={rank}")) for rank in (4, 8, 32, 64)]
    alphas = [(f"Alpha {alpha}", (f"heads.alpha={alpha}",)) for alpha in (1.0, 1.25, 2.0, 4.0, 8.0)]
    looks = [(f"Appearance {x}", (f"render.appearance_strength={x}",)) for x in (0.0, 0.25, 0.5, 0.75, 1.0)]
    motions = [(f"Motion {x}", (f"render.motion_strength={x}",)) for x in (0.75, 1.25)]
    return [
        Method(title.lower().replace(" ", "-"), title, "sweep", overrides)
        for title, overrides in (*ranks, *alphas, *looks, *motions)
    ]


METHODS = {method.name: method for method in (*_peers(), *_ablations(), *_controls(), *_sweeps())}
"""All methods by name, in the order of the tables."""


def choose(methods: Sequence[str], ablations: Sequence[str], variants: Sequence[str] = ()) -> list[Method]:
    """The methods of these names, EffiVMT, and all that they are compared against, in the order of the tables.

    `methods` names those of kind method, also by the path of a file (.py), `ablations` the others; `all` stands for
    every name of its list except the sweeps, a kind (`ablation`, `control`, `sweep`) for every method of it. `variants`
    are `NAME:section.key=value`, of which those of one name are one method. Without any: all of kind method. Raises
    ParamsError, which lists the names, for an unknown one.
    """
    if not methods and not ablations and not variants:
        methods = (ALL,)
    files = [name for name in methods if name.endswith(".py")]
    methods = [name for name in methods if name not in files]
    added = [*map(of_file, files), *_variants(variants)]
    for number, method in enumerate(added):
        if method.name in METHODS or any(other.name == method.name for other in added[:number]):
            raise ParamsError(f"there are two methods of the name {method.name}; give one of them another name")
    chosen = {OURS}
    for option, names, kinds in (
        ("--method", methods, ("method",)),
        ("--ablation", ablations, ("ablation", "control", "sweep")),
    ):
        known = {name: method.kind for name, method in METHODS.items() if method.kind in kinds}
        for asked in names:
            found = {
                name for name, kind in known.items() if asked in (name, kind) or (asked == ALL and kind != "sweep")
            }
            if not found:
                listed = ", ".join((ALL, *(kinds if len(kinds) > 1 else ()), *known))
                raise ParamsError(f"{option} {asked}: there is no such name; expected one of {listed}")
            chosen |= found
    while missing := {METHODS[name].against for name in chosen} - chosen:
        chosen |= missing
    return [*(method for name, method in METHODS.items() if name in chosen), *added]


@dataclass(frozen=True)
class Lack:
    """Why a method cannot make what a clip asks for, and the columns of the catalog that ask for it."""

    reason: str
    columns: str


def lack(method: Method, clip: Clip) -> Lack | None:
    """What a method cannot do that a clip asks for; None where it can do all.

    Peers take the whole motion of a clip. Those that tune LoRAs render as the backbone does, also from an image; those
    that guide the sampling start from a text.
    """
    if clip.chosen and method.peer is not None:
        return Lack(f"{method.title} transfers whole motions", "motion_of and region")
    if clip.images and method.peer is not None and not tunes(method.peer):
        return Lack(f"{method.title} makes videos of texts", "the images")
    return None


def of_file(name: str) -> Method:
    """The method in a user's file, named like the file."""
    path = Path(name).resolve()
    if not path.is_file():
        raise ParamsError(f"--method {name}: there is no such file; give the path of a Python file, or a name")
    if not path.stem.isidentifier() or is_of_peer(f"{path.stem}.") or path.stem in Params.model_fields:
        raise ParamsError(
            f"--method {name}: {path.stem} is taken, or is no name in Python; rename the file, as in my_method.py"
        )
    return Method(path.stem.replace("_", "-"), path.stem, "method", (_EVERY_STEP,), maker="file", file=path)


def _variants(texts: Sequence[str]) -> list[Method]:
    """EffiVMT with its params overridden, by name."""
    overrides: dict[str, list[str]] = {}
    for text in texts:
        name, separator, override = text.partition(":")
        if not separator or not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,40}", name) or "=" not in override:
            raise ParamsError(
                f"--variant {text!r:.80} is not of the form NAME:section.key=value (such as long:temporal.steps=2000)"
            )
        if is_of_peer(override):
            raise ParamsError(f"--variant {text!r:.80} is of a peer's params; a variant is EffiVMT with other params")
        overrides.setdefault(name, []).append(override)
    return [Method(name, name, "variant", tuple(own)) for name, own in overrides.items()]

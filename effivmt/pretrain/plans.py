"""How much of each step the recipe trains: one plan for a processor, one for a GPU."""

from dataclasses import dataclass, replace

from effivmt.errors import ParamsError
from effivmt.pretrain.pool import Supply


@dataclass(frozen=True)
class Phase:
    """One run of a training loop of `steps` optimizer steps.

    `frames`: the numbers of frames that a sample may have, pixel frames for the autoencoder, latent frames for the
    transformer. The autoencoder uses none of the fields after `learning_rate`. `final_rate`: the learning rate at the
    end. `sparse_of`: a sample is a part of a clip of as many latent frames (None: it is a whole clip). `continued`: the
    share of steps that are given the first latent frame. `flow_shift`: the shift of the noise levels; a larger one
    trains what prompts decide. `average`: the decay of the running average of the weights.
    """

    name: str
    steps: int
    frames: tuple[int, ...]
    learning_rate: float
    final_rate: float = 1e-4
    sparse_of: int | None = None
    continued: float = 0.0
    flow_shift: float = 2.0
    average: float = 0.999


@dataclass(frozen=True)
class Plan:
    """The phases of the autoencoder and the transformer, and how much each step sees.

    A step of the autoencoder sees `crop_frames` frames, in crops of `crop_clips` clips; one of the transformer
    `batch_frames` latent frames, of a `supply` of clips of each length. The latents of `measured_clips` clips are
    measured. `scorer_steps`: the scorer's steps by the width of its patches in pixels, coarse ones first (patches of 8
    see fine patterns badly, those of 4 cost four times as much); a step sees `scorer_batch` frames of `scorer_clips`
    clips.
    """

    autoencoder: tuple[Phase, ...]
    transformer: tuple[Phase, ...]
    crop_frames: int
    crop_clips: int
    batch_frames: int
    measured_clips: int
    supply: Supply
    scorer_steps: dict[int, int]
    scorer_batch: int
    scorer_clips: int


LONGEST = 21
"""Latent frames of the longest clips: 81 frames, 5 s at 16 a second, as in Wan."""
LENGTHS = (*range(2, LONGEST + 1), *[LONGEST] * 17, *[9] * 5, *[1] * 3)
"""Latent frames that a step of the last phase draws from: any length, most often the longest and that of 33 frames."""
_PROCESSOR = Plan(
    autoencoder=(
        Phase("short", 6500, (5, 9), 1e-3),
        Phase("long", 5000, (9, 17, 33, 33), 8e-4),
    ),
    transformer=(
        Phase("stills", 4000, (1,), 1e-3, 4e-4, flow_shift=2.0),
        Phase("sparse", 900, (6, 6, 6, 1), 4e-4, 2e-4, sparse_of=LONGEST, continued=0.15, flow_shift=3.0),
        Phase("whole", 20_000, LENGTHS, 3e-4, 2e-5, continued=0.17, flow_shift=2.5),
    ),
    crop_frames=72,
    crop_clips=2000,
    batch_frames=84,
    measured_clips=4096,
    supply=Supply(frames=336, shards=4, uses=5.0),
    scorer_steps={8: 6500, 4: 3000},
    scorer_batch=64,
    scorer_clips=20_000,
)
_STILLS, _SPARSE, _WHOLE = _PROCESSOR.transformer
PLANS = {
    "processor": _PROCESSOR,
    "gpu": replace(
        _PROCESSOR,
        autoencoder=(
            Phase("short", 6500, (5, 9), 1e-3),
            Phase("long", 13_500, (9, 17, 33), 1e-3),
        ),
        transformer=(
            replace(_STILLS, steps=4000),
            replace(_SPARSE, steps=2000, learning_rate=7e-4, final_rate=5e-4),
            replace(_WHOLE, steps=60_000, learning_rate=7e-4, average=0.9995),
        ),
        crop_frames=288,
        crop_clips=4000,
        batch_frames=336,
        supply=Supply(frames=1344, shards=32, uses=16.0),
        scorer_steps={4: 6000},
        scorer_batch=256,
        scorer_clips=40_000,
    ),
}


def plan_of(name: str) -> Plan:
    """The plan of that name; ParamsError for another name."""
    if name not in PLANS:
        raise ParamsError(f"--plan is {name!r}; expected one of {', '.join(PLANS)}")
    return PLANS[name]

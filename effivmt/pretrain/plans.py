"""How much of each step the recipe trains: one plan for a processor, one for a GPU."""

from dataclasses import dataclass, replace

from effivmt.errors import ParamsError


@dataclass(frozen=True)
class Phase:
    """One run of a training loop: optimizer steps, the frames a sample may have (pixel for the autoencoder, latent
    frames for the transformer), learning rates; of the transformer's the shift of the noise levels (a larger one
    trains what prompts decide) and the decay of the running average of its weights."""

    name: str
    steps: int
    frames: tuple[int, ...]
    learning_rate: float
    final_rate: float = 1e-4
    flow_shift: float = 2.0
    average: float = 0.999


@dataclass(frozen=True)
class Plan:
    """The phases of autoencoder and transformer, what a step sees (`crop_frames` frames of crops of `crop_clips`
    clips; `batch` whole clips), the shards of 64 clips and of 64 stills that the transformer learns from, and the
    scorer's steps by the width of its patches in pixels, coarse ones first (8 see fine patterns badly, 4 cost four
    times as much), its frames a step and its clips."""

    autoencoder: tuple[Phase, ...]
    transformer: tuple[Phase, ...]
    crop_frames: int
    crop_clips: int
    batch: int
    clips: range
    stills: range
    scorer_steps: dict[int, int]
    scorer_batch: int
    scorer_clips: int


_PROCESSOR = Plan(
    autoencoder=(
        Phase("short", 6500, (5, 9), 1e-3),
        Phase("long", 5000, (9, 17, 33, 33), 8e-4),
    ),
    transformer=(
        Phase("stills", 4000, (1,), 1e-3, 4e-4, flow_shift=2.0),
        Phase("sparse", 1200, (3, 3, 3, 1), 1e-3, 3e-4, flow_shift=3.0),
        Phase("whole", 20_000, (9, 9, 1, 1, 1), 5e-4, 2e-5, flow_shift=2.5),
    ),
    crop_frames=72,
    crop_clips=2000,
    batch=8,
    clips=range(384),
    stills=range(512),
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
            replace(_SPARSE, steps=2000),
            replace(_WHOLE, steps=53_000, frames=(9, 9, 9, 1), learning_rate=1e-3, average=0.9995),
        ),
        crop_frames=288,
        crop_clips=4000,
        batch=64,
        clips=range(1600),
        stills=range(1024),
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

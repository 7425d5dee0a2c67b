"""Motion metrics of a generated video against its reference, from the point tracks of both.

Every function takes tracks in frame widths (`in_frame_widths`), so that videos of any size can be compared. None
returns NaN. Where nothing can be tracked in a video, what compares or measures it is None: not measurable.
"""

from dataclasses import dataclass

import numpy as np

from effivmt.evaluation.tracks import Tracker, Tracks, track

STILL = 0.05
"""A point that moves well below this far over a whole clip, in frame widths, counts as standing still."""
MOST_FRAMES = 33
"""Longer clips are compared at every second, third, ... frame: a track drifts with every step, and where steps are far
below a pixel their directions are noise."""
SHARED = 0.25
"""Share of a track's frames in which another track must be visible for their distance to count."""


@dataclass(frozen=True)
class MotionScores:
    """How well a generated video follows the motion of its reference; fidelities in [-1, 1], 1 is best.

    motion_fidelity is the published metric; two_sided_motion_fidelity also requires every reference track to be found;
    foreground_motion_fidelity is two-sided over what moves against the ground. trajectory_error is in frame widths, in
    [0, 1], 0 is best. motion_amount and reference_motion_amount are the mean path of the foreground in frame widths a
    compared frame: a still result shows as motion_amount near 0. None: not measurable.
    """

    motion_fidelity: float | None
    two_sided_motion_fidelity: float | None
    foreground_motion_fidelity: float | None
    trajectory_error: float | None
    motion_amount: float | None
    reference_motion_amount: float | None


def compare_motion(
    reference_frames: np.ndarray, generated_frames: np.ndarray, tracker: Tracker = track
) -> MotionScores:
    """Tracks two clips, uint8 (T, H, W, 3) of any sizes and lengths, and scores the second against the first.

    The generated frame is stretched onto the reference frame, and the longer clip is resampled in time to the length
    of the shorter. Of a clip of more than `MOST_FRAMES` frames some are left out (`compared`). Raises VideoError as the
    tracker does.
    """
    reference_frames, generated_frames = compared(reference_frames), compared(generated_frames)
    height, width = reference_frames.shape[1:3]
    length = min(len(reference_frames), len(generated_frames))
    reference, generated = (
        _resampled(in_frame_widths(tracker(frames), frames.shape[2], frames.shape[1], height / width), length)
        for frames in (reference_frames, generated_frames)
    )
    moving, moving_generated = foreground(reference, height / width), foreground(generated, height / width)
    return MotionScores(
        motion_fidelity=motion_fidelity(reference, generated),
        two_sided_motion_fidelity=two_sided_motion_fidelity(reference, generated),
        foreground_motion_fidelity=two_sided_motion_fidelity(moving, moving_generated),
        trajectory_error=trajectory_error(moving, moving_generated),
        motion_amount=motion_amount(moving_generated),
        reference_motion_amount=motion_amount(moving),
    )


def compared(frames: np.ndarray) -> np.ndarray:
    """Of frames (T, ...) every n-th from the first on, with the least n that leaves `MOST_FRAMES` or fewer."""
    return frames[:: max(1, -(-(len(frames) - 1) // (MOST_FRAMES - 1)))]


def in_frame_widths(tracks: Tracks, width: int, height: int, aspect: float) -> Tracks:
    """Tracks of a width x height pixel video on a frame 1 wide and `aspect` high."""
    scale = np.array([1 / width, aspect / height], np.float32)
    return Tracks((tracks.points + 0.5) * scale, tracks.visible)


def motion_fidelity(reference: Tracks, generated: Tracks) -> float | None:
    """Mean over generated tracks of their best agreement with any reference track, in [-1, 1]; both of length T.

    Agreement of two tracks is the mean over the frames in which both are visible of the cosine of their steps; they
    must share at least half of the generated track's frames. The published cosine is 0/0 on still points. Here each
    step gets a third coordinate, `STILL` / (T - 1): two still steps agree fully, a still and a moving step not at all,
    with no jump between the two, and the cosine of steps much longer than that is the published one.

    The metric is one-sided: it ignores motion that the generated video leaves out, and also position and speed. None
    if either side has no tracks.

    Source: Yatim et al., "Space-Time Diffusion Features for Zero-Shot Text-Driven Motion Transfer" (CVPR 2024), as in
    the authors' code.
    """
    if len(reference.points) == 0 or len(generated.points) == 0:
        return None
    (steps, shown), (steps_generated, shown_generated) = _directions(reference), _directions(generated)
    summed = np.einsum("ntc,mtc->nm", steps_generated, steps)
    shared = shown_generated.astype(np.float32) @ shown.T.astype(np.float32)
    enough = (shared >= 0.5 * shown_generated.sum(1, keepdims=True)) & (shared > 0)
    agreement = np.where(enough, summed / np.maximum(shared, 1), -np.inf).max(1)
    return float(np.where(np.isfinite(agreement), agreement, 0.0).mean())


def two_sided_motion_fidelity(reference: Tracks, generated: Tracks) -> float | None:
    """Mean of the motion fidelity in both directions, in [-1, 1]; motion that is left out or added lowers it.

    None if either side has no tracks.
    """
    there, back = motion_fidelity(reference, generated), motion_fidelity(generated, reference)
    return None if there is None or back is None else (there + back) / 2


def foreground(tracks: Tracks, aspect: float) -> Tracks:
    """The tracks that move against the ground of a frame 1 wide and `aspect` high; all tracks when none does.

    The ground's motion is the median step of the points in the outer eighth of the frame. Where points cover too
    little of that area, the ground is plain and the camera is assumed to be still. A track moves if its path relative
    to the ground spans at least 0.04 frame widths; when none does, all motion is the camera's (or there is none).
    """
    relative = tracks.points - _ground_path(tracks, aspect)
    seen = tracks.visible[..., None]
    span = np.where(seen, relative, -np.inf).max(1) - np.where(seen, relative, np.inf).min(1)
    moving = np.linalg.norm(span, axis=1) >= 0.04
    return Tracks(tracks.points[moving], tracks.visible[moving]) if moving.any() else tracks


def trajectory_error(reference: Tracks, generated: Tracks) -> float | None:
    """Mean distance of the tracks' paths from the nearest ones of the other video, in frame widths, in [0, 1].

    Paths are absolute, so a wrong position and a wrong speed both count. The distance of two tracks is the mean over
    the frames in which both are visible. The nearest track is chosen among those that are visible in `SHARED` of the
    track's own frames or, where there is none, among all of them, extended at rest beyond their first and last visible
    frames. This is done for each track of either video, and the means of the two videos are averaged, so that motion
    that is left out and motion that is added both count. Points lie on the corners of objects: objects of different
    shapes on the same path are a few hundredths apart. At most 1; None if either side has no tracks.

    Source: the modified Hausdorff distance, Dubuisson and Jain (ICPR 1994), of trajectories instead of points.
    """
    if len(reference.points) == 0 or len(generated.points) == 0:
        return None
    distance = np.linalg.norm(reference.points[:, None] - generated.points[None], axis=-1)
    both = reference.visible[:, None] & generated.visible[None]
    count = both.sum(-1)
    apart, resting = (distance * both).sum(-1) / np.maximum(count, 1), distance.mean(-1)
    sides = (
        _nearest(apart, count, resting, reference.visible.sum(1)),
        _nearest(apart.T, count.T, resting.T, generated.visible.sum(1)),
    )
    return min(float(np.mean(sides)), 1.0)


def motion_amount(tracks: Tracks) -> float | None:
    """Mean path length of the tracks in frame widths a frame; None without tracks."""
    if len(tracks.points) == 0:
        return None
    steps, shown = _steps(tracks)
    lengths = np.linalg.norm(steps, axis=-1)
    return float(((lengths * shown).sum(1) / np.maximum(shown.sum(1), 1)).mean())


_COVERED = 0.4  # share of the grid cells along the frame's border that hold a point when the ground is textured


def _steps(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Steps (N, T-1, 2), and whether both ends of each are visible (N, T-1)."""
    return np.diff(tracks.points, axis=1), tracks.visible[:, 1:] & tracks.visible[:, :-1]


def _directions(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of (dx, dy, still), zero where not visible: (N, T-1, 3); and where they are visible (N, T-1)."""
    steps, shown = _steps(tracks)
    lifted = np.concatenate([steps, np.full((*shown.shape, 1), STILL / shown.shape[1], steps.dtype)], -1)
    return lifted / np.linalg.norm(lifted, axis=-1, keepdims=True) * shown[..., None], shown


def _ground_path(tracks: Tracks, aspect: float) -> np.ndarray:
    """Displacement of the ground since the first frame: (T, 2)."""
    length = tracks.points.shape[1]
    cells = np.clip(np.floor(tracks.points / [1, aspect] * 8), 0, 7).astype(int)
    border = ((cells == 0) | (cells == 7)).any(-1) & tracks.visible
    covered = np.mean([len(np.unique(cells[border[:, t], t], axis=0)) / 28 for t in range(length)])
    path = np.zeros((length, 2))
    if covered >= _COVERED:
        steps, shown = _steps(tracks)
        shown &= border[:, :-1]
        for t in np.flatnonzero(shown.any(0)):
            path[t + 1] = np.median(steps[shown[:, t], t], axis=0)
    return path.cumsum(0)


def _nearest(apart: np.ndarray, count: np.ndarray, resting: np.ndarray, seen: np.ndarray) -> float:
    """Mean over N tracks, visible in `seen` (N,) frames, of the distance from the nearest of M others.

    apart and resting (N, M): mean distances over the `count` (N, M) frames in which both are visible, and over all.
    """
    least = np.where(count >= np.maximum(SHARED * seen, 1)[:, None], apart, np.inf).min(1)
    return float(np.where(np.isfinite(least), least, resting.min(1)).mean())


def _resampled(tracks: Tracks, length: int) -> Tracks:
    """Tracks at `length` evenly spread times from the first frame to the last, linear between frames.

    A track that is visible at none of these times is left out.
    """
    at = np.linspace(0, tracks.points.shape[1] - 1, length)
    before = np.floor(at).astype(int)
    after = np.ceil(at).astype(int)
    share = (at - before).astype(np.float32)[None, :, None]
    points = tracks.points[:, before] * (1 - share) + tracks.points[:, after] * share
    visible = tracks.visible[:, before] & tracks.visible[:, after]
    return Tracks(points[visible.any(1)], visible[visible.any(1)])

"""What was taken of a video as the clip: which seconds, at what rate, and which part of its picture."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effivmt.config import IngestParams
from effivmt.store import Artifact

if TYPE_CHECKING:
    from effivmt.media.video import VideoInfo

FILE = "excerpt.json"
"""The file of the ingest artifact that holds an excerpt."""


@dataclass(frozen=True)
class Excerpt:
    """The clip within its video: `num_frames` of the `asked` ones at `fps`, from `start` to `end` of `duration`
    seconds, and of the shown picture of `width` x `height` pixels the middle `crop_width` x `crop_height`."""

    num_frames: int
    asked: int
    fps: float
    start: float
    end: float
    duration: float
    width: int
    height: int
    crop_width: int
    crop_height: int

    @property
    def short(self) -> bool:
        """Whether the video has fewer frames than were asked for."""
        return self.num_frames < self.asked

    def describe(self) -> str:
        """One line: "81 frames at 16 fps, 0.00 to 5.06 s of 7.20 s, the middle 720x720 of 1280x720"."""
        frames = f"{self.num_frames} frames"
        if self.short:
            frames += f" (not the {self.asked} asked for: the video is too short)"
        picture = f"the middle {self.crop_width}x{self.crop_height} of {self.width}x{self.height}"
        if (self.crop_width, self.crop_height) == (self.width, self.height):
            picture = f"all of {self.width}x{self.height}"
        return f"{frames} at {self.fps:g} fps, {self.start:.2f} to {self.end:.2f} s of {self.duration:.2f} s, {picture}"


def take(info: "VideoInfo", num_frames: int, params: IngestParams, *, start: float) -> Excerpt:
    """The excerpt of `num_frames` frames from `start` (seconds) of a video, as `media.video.read_clip` takes it."""
    ratio = params.width / params.height / info.aspect
    return Excerpt(
        num_frames=num_frames,
        asked=params.num_frames,
        fps=params.fps,
        start=start,
        end=min(start + num_frames / params.fps, info.duration),
        duration=info.duration,
        width=info.width,
        height=info.height,
        crop_width=round(min(info.width, info.height * ratio)),
        crop_height=round(min(info.height, info.width / ratio)),
    )


def load_excerpt(ingested: Artifact) -> Excerpt:
    """The excerpt in an ingest artifact."""
    return Excerpt(**json.loads(ingested.read(FILE)))

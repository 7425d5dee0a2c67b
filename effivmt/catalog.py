"""A clip: one reference video with its caption and the prompts that its motion goes to."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from effivmt.config import Section

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Clip(Section):
    """One row of a catalog."""

    clip: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
    """The clip's id: letters, digits, `-` and `_`."""
    video: Path
    caption: Text
    prompts: tuple[Text, ...]
    start: Annotated[float, Field(ge=0)] = 0.0
    end: Annotated[float, Field(gt=0)] | None = None
    """Trim, in seconds of the file."""
    appearance_images: Path | None = None
    """Folder of images that the spatial stage learns from, instead of the clip's own frames."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of classification and tuning; None takes the params' own."""

    @field_validator("prompts")
    @classmethod
    def _some_prompt(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not prompts:
            raise ValueError("a clip needs at least one prompt")
        return tuple(dict.fromkeys(prompts))

"""The suite of image to video and of a part of the motion: what it promises, and that the mask finds what is wanted."""

from collections import Counter

import numpy as np
import pytest

from effivmt.benchmark.extra import IMAGES, PARTS, extra_scenes
from effivmt.benchmark.scene import NUM_FRAMES
from effivmt.method.masks import wanted_part
from effivmt.pretrain.examinations.judge import judge
from effivmt.world.looks import names_held_out
from effivmt.world.motions import SIZE

SCENES = {scene.name: scene for scene in extra_scenes()}


def test_classes_and_what_each_asks_for() -> None:
    assert Counter(scene.group for scene in SCENES.values()) == {IMAGES: 3, PARTS: 6}
    asked = Counter((scene.motion_of, scene.region is not None) for scene in SCENES.values() if scene.group == PARTS)
    assert asked == {("camera", False): 2, ("object", False): 2, ("all", True): 2}
    for scene in SCENES.values():
        assert len(set(scene.prompts)) == 2 and not scene.unsaid
        assert not any(names_held_out(text) for text in (scene.caption, *scene.prompts))
        assert len(scene.images) == (2 if scene.group == IMAGES else 0)


@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.images])
def test_images_show_what_their_prompts_say(name: str) -> None:
    for prompt, image in zip(SCENES[name].prompts, SCENES[name].images, strict=True):
        seen = judge(image[None])
        assert prompt.split()[1:3] == [seen.colour, seen.shape] and seen.background in prompt


@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.group == PARTS])
def test_the_mask_finds_the_wanted_motion(name: str) -> None:
    scene = SCENES[name]
    drawn = scene.draw()
    assert drawn.frames.shape == (NUM_FRAMES, SIZE, SIZE, 3) and np.array_equal(drawn.frames, scene.draw().frames)
    part = wanted_part(drawn.frames, scene.motion_of, scene.region)
    assert (part.wanted & drawn.mask).sum() > 0.94 * drawn.mask.sum()
    if scene.motion_of != "camera":  # the other object, or what else moves, is not taken along
        assert part.wanted.mean() < 2.5 * drawn.mask.mean()

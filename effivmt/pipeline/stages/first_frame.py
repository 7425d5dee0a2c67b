"""First frames that are given: the clip's own, to stages 1 and 3, and the images that videos begin with."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.catalog import Clip
from effivmt.errors import ParamsError, VideoError
from effivmt.pipeline.stages.tensors import load_tensor, load_tensors
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.verification import known_sha256

if TYPE_CHECKING:
    import numpy as np

    from effivmt.method.prediction import FirstFrame

FILE = "first_frame.safetensors"
_CLEAN, _BESIDE, _EMBEDDING = "clean", "beside", "embedding"
_SIDES = 16
"""`WanImageToVideoPipeline` takes heights and widths that are multiples of this."""


def check_images(work: Workspace, prompts: Sequence[str], images: Sequence[Path]) -> None:
    """Checks the images that videos begin with, one for each prompt or none, before any work.

    ParamsError where their number is another, where the backbone takes none or cannot do without, and where the size to
    render does not go with them. VideoError for one that cannot be read.
    """
    found = work.folder
    if not images:
        if found.shape.needs_image:
            raise ParamsError(
                f"backbone {found.id} makes videos of images: give one for each prompt (--image, in a catalog the "
                "column images)"
            )
        return
    if len(images) != len(prompts):
        raise ParamsError(
            f"there are {len(images)} image{'s' * (len(images) > 1)} for {len(prompts)} "
            f"prompt{'s' * (len(prompts) > 1)}; give one image for each prompt"
        )
    if not (found.shape.first_frame or found.shape.needs_image):
        raise ParamsError(
            f"backbone {found.id} takes no image: it makes videos of texts alone; leave the image out, or set "
            "backbone.path to Wan 2.2 TI2V-5B, to a Wan I2V model or to wan-tiny"
        )
    for side in ("height", "width"):
        if (pixels := getattr(work.params.ingest, side)) % _SIDES:
            raise ParamsError(f"ingest.{side} is {pixels}; with an image it must be a multiple of {_SIDES}")
    for image in dict.fromkeys(images):
        fitted(work, image)


def check_clip_images(work: Workspace, clip: Clip) -> None:
    """`check_images` for a clip that is tuned; ParamsError, too, where settings of the tuning do not go with images."""
    check_images(work, clip.prompts, clip.images)
    if work.gives_first_frame(clip) and (mode := work.params.sampling.mode) not in ("anchored", "dense"):
        raise ParamsError(
            f"sampling.mode is {mode}, which does not always keep the first frame; where that is given set it to "
            "anchored or dense"
        )


def image_digest(image: Path) -> str:
    """The digest of an image file; VideoError where there is none."""
    if not image.is_file():
        raise VideoError(f"image {image} does not exist or is no file; give the path of an image")
    return known_sha256(image)


def fitted(work: Workspace, image: Path) -> "np.ndarray":
    """An image uint8 (H, W, 3) of the clip's size: its middle, cropped to the clip's shape and scaled.

    VideoError where it cannot be read.
    """
    from effivmt.media.video import read_image

    size = work.params.ingest
    image_digest(image)
    return read_image(image, height=size.height, width=size.width)


def first_frame_key(work: Workspace, ingested: Artifact) -> Key:
    """The store key; `ingested` is of `ingest` or, for a part of the motion, of `mask`."""
    return work.key("first_frame", {"clip": ingested.digest("frames.safetensors")}, work.tf32)


def first_frame(work: Workspace, ingested: Artifact) -> Artifact:
    """The clip's own first frame as the backbone is given it; files: first_frame.safetensors."""
    key = first_frame_key(work, ingested)
    return work.store.build(key, partial(_encode, work, ingested=ingested), force=work.forces(key))


def load_first_frame(artifact: Artifact) -> "FirstFrame":
    """The first frame in an artifact of `first_frame`."""
    from effivmt.method.prediction import FirstFrame

    tensors = load_tensors(artifact, Path(FILE).stem)
    clean = _CLEAN in tensors
    return FirstFrame(tensors[_CLEAN if clean else _BESIDE], clean, tensors.get(_EMBEDDING))


def _encode(work: Workspace, out: Path, _scratch: Path, *, ingested: Artifact) -> None:
    from safetensors.torch import save_file

    work.backbone.keep("vae", "image_encoder", "image_processor")
    frames = load_tensor(ingested, "frames").numpy()
    first = work.backbone.first_frame(frames[0], len(frames))
    tensors = {_CLEAN if first.clean else _BESIDE: first.latents.contiguous()}
    if first.embedding is not None:
        tensors[_EMBEDDING] = first.embedding.contiguous()
    save_file(tensors, out / FILE)

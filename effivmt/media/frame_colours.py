"""A decoded frame as RGB, in the matrix, range, primaries and transfer function that it was stored with."""

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from effivmt.media import colour

CONVERSION = (  # the way from YUV to RGB
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
MATRICES = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10)
"""Colour matrices that libav converts to RGB (ITU-T H.273)."""
UNTAGGED, BT709, BT2020 = 2, 1, 9  # matrices; of BT.2020 also the primaries
OF_BT601 = ("mjpeg", "vp8", "webp")
"""Codecs whose colours are of BT.601 at any size."""


def tag_matrix(frame: av.VideoFrame, codec: str) -> None:
    """Gives a frame without a colour matrix BT.709's where it is HD, as mpv does; libav would take BT.601's."""
    is_hd = frame.width >= 1280 or frame.height > 576
    if frame.colorspace == UNTAGGED and is_hd and codec not in OF_BT601 and not frame.format.is_rgb:
        frame.colorspace = BT709


def frame_rgb(frame: av.VideoFrame, width: int | None, height: int | None) -> np.ndarray:
    """A frame as stored, as RGB uint8 (H, W, 3) of BT.709, at its own size or at width and height."""
    if frame.color_trc not in (colour.PQ, colour.HLG) and frame.color_primaries not in colour.PRIMARIES:
        return frame.reformat(width, height, format="rgb24", interpolation=CONVERSION, threads=1).to_ndarray()
    is_rgb = frame.format.is_rgb
    kind = "rgb48le" if is_rgb else "yuv444p16le"
    whole = frame.reformat(width, height, format=kind, interpolation=CONVERSION, threads=1)
    stored = whole.to_ndarray(channel_last=True)
    matrix = BT2020 if frame.color_primaries == BT2020 else BT709
    if frame.colorspace in colour.LUMA:
        matrix = frame.colorspace
    shown = np.empty(stored.shape, np.uint8)
    for top in range(0, len(stored), colour.ROWS):
        rows = stored[top : top + colour.ROWS]
        full = frame.color_range == ColorRange.JPEG
        signal = rows / np.float32(65535) if is_rgb else colour.decode_yuv(rows, matrix, full=full)
        shown[top : top + colour.ROWS] = colour.to_bt709(signal, frame.color_trc, frame.color_primaries)
    return shown

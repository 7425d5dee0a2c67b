"""Colours of HDR and wide-gamut video in BT.709, as a player shows them on an ordinary display.

A signal is decoded to linear light, moved to BT.709's primaries, brought into the display's range and encoded with the
display's gamma. Diffuse white of HDR is at 203 cd/m² (ITU-R BT.2408) and becomes the display's white but for a little:
above 80 % of it, light is compressed so that highlights up to 1000 cd/m² keep their shape.
"""

from functools import cache

import numpy as np

PQ, HLG = 16, 18
"""Transfer functions that are HDR (ITU-T H.273)."""
PRIMARIES = {
    9: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    12: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
"""Linear light of wide primaries (BT.2020, Display P3; ITU-T H.273) as that of BT.709."""
LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Weights of red and blue in luma by matrix (BT.709, BT.601 twice, BT.2020 non-constant; ITU-T H.273)."""
WHITE, PEAK = 203.0, 1000.0  # cd/m²
KNEE = 0.8  # of white
GAMMA = 2.4  # of the display, ITU-R BT.1886
ROWS = 64  # of a frame that are converted at once, so that a 4K frame takes little memory


def decode_yuv(yuv: np.ndarray, matrix: int, *, full: bool) -> np.ndarray:
    """R'G'B' float32 (..., 3), 0 to 1 with overshoots, of Y'CbCr uint16 (..., 3) of limited or full range."""
    red, blue = LUMA[matrix]
    low, luma, chroma = (0.0, 65535.0, 65535.0) if full else (4096.0, 56064.0, 57344.0)
    y, cb, cr = np.moveaxis(yuv.astype(np.float32) - np.array((low, 32768, 32768), np.float32), -1, 0)
    y, cb, cr = y / luma, cb / chroma, cr / chroma
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)


def to_bt709(signal: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """R'G'B' uint8 (..., 3) for a BT.709 display of R'G'B' float (..., 3) with this transfer function and primaries.

    Transfer functions other than PQ and HLG are taken as the display's own gamma, primaries that are not in
    `PRIMARIES` as BT.709's.
    """
    levels = np.rint(np.clip(signal, 0, 1) * np.float32(_LEVELS - 1)).astype(np.uint16)
    light = _light(transfer)[levels]
    if primaries in PRIMARIES:
        light = light @ np.array(PRIMARIES[primaries], np.float32).T
    light = np.maximum(light, 0)
    if transfer in _LIGHT:
        light = light * _compression(light.max(-1, keepdims=True))
    return np.rint(255 * np.minimum(light, 1) ** (1 / GAMMA)).astype(np.uint8)


def _pq(signal: np.ndarray) -> np.ndarray:
    """Light of PQ in cd/m² (SMPTE ST 2084)."""
    power = signal ** (32 / 2523)
    return 10_000 * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Light of HLG on a display of 1000 cd/m² (ARIB STD-B67), its system gamma on each colour, as zimg has it.

    ITU-R BT.2100 has it on luminance, which shows strong colours less saturated.
    """
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return 1000 * scene**1.2


_LIGHT = {PQ: _pq, HLG: _hlg}
_LEVELS = 2**16
"""Of a signal whose light is looked up: powers of every pixel would take as long as decoding."""


@cache
def _light(transfer: int) -> np.ndarray:
    """Light of `_LEVELS` signals from 0 to 1, white 1: float32."""
    signal = np.linspace(0, 1, _LEVELS)
    return (_LIGHT[transfer](signal) / WHITE if transfer in _LIGHT else signal**GAMMA).astype(np.float32)


def _compression(brightest: np.ndarray) -> np.ndarray:
    """Factor on light whose strongest colour is `brightest` times white: 1 up to `KNEE`, then towards white at `PEAK`.

    Source: Reinhard et al., "Photographic Tone Reproduction for Digital Images" (2002), equation 4, above the knee.
    """
    above, most = (brightest - KNEE) / (1 - KNEE), (PEAK / WHITE - KNEE) / (1 - KNEE)
    squeezed = KNEE + (1 - KNEE) * above * (1 + above / most**2) / (1 + np.maximum(above, 0))
    return np.where(above <= 0, 1.0, squeezed / np.maximum(brightest, KNEE)).astype(np.float32)

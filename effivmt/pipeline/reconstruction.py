"""How well the backbone's autoencoder gives a clip back: what it loses, no adapter can bring into a result."""

import json
from typing import TYPE_CHECKING

from effivmt.store import Artifact

if TYPE_CHECKING:
    import numpy as np

FILE, FIELD = "reconstruction.json", "psnr"
"""The file of the ingest artifact that holds the measure, and its field."""
KEPT = 25.0
"""dB. Of a clip that comes back with less, the backbone keeps little: filmed footage has 20 to 21 on wan-tiny, the
kinds of clips that it was trained on 28 to 34."""
MOST = 99.0
"""dB of a clip that comes back as it is."""


def psnr(frames: "np.ndarray", decoded: "np.ndarray") -> float:
    """Peak signal-to-noise ratio of decoded frames, uint8 (T, H, W, 3), in dB with two decimals, at most `MOST`."""
    import numpy as np

    errors = [np.square(frame - back.astype(np.float32)).mean() for frame, back in zip(frames, decoded, strict=True)]
    error = float(np.mean(errors, dtype=np.float64))
    return MOST if error == 0 else round(min(MOST, 10 * float(np.log10(255**2 / error))), 2)


def load_psnr(ingested: Artifact) -> float:
    """The measure in an ingest artifact, in dB."""
    return float(json.loads(ingested.read(FILE))[FIELD])

"""Whether a bundle on disk is whole and embeds.

It does not know how well: that is its report's.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from encoders.errors import CorruptBundle


def verify_bundle(path: Path | str) -> Bundle:
    """Checks every file's SHA-256, then embeds a picture and a text. Raises BundleError."""
    bundle = Bundle.open(path)
    encoder = Encoder.load(bundle, device="cpu")
    rows = {
        "picture": encoder.encode_images([Image.new("RGB", (64, 48), (200, 80, 40))]),
        "text": encoder.encode_texts(["a red square"]).vectors,
    }
    for kind, vectors in rows.items():
        length = float(np.linalg.norm(vectors[0]))
        if not abs(length - 1.0) < 1e-3:
            raise CorruptBundle(f"{path}: a {kind} embeds to a vector of length {length}, not 1")
    return bundle

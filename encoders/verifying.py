"""Whether a bundle on disk is whole and embeds."""

from pathlib import Path

import numpy as np
from PIL import Image

from encoders.bundle import Bundle
from encoders.diagnosis import check_golden, diagnose
from encoders.encoder import Encoder
from encoders.errors import CorruptBundle, ParityLost
from encoders.golden import read_golden


def verify_bundle(path: Path | str) -> Bundle:
    """Checks every file's SHA-256, embeds an image and a text, and the golden inputs where it carries some.

    Raises BundleError; ParityLost with the likely cause where the golden vectors come out otherwise.
    """
    bundle = Bundle.open(path)
    encoder = Encoder.load(bundle, device="cpu")
    rows = {
        "image": encoder.encode_images([Image.new("RGB", (64, 48), (200, 80, 40))]),
        "text": encoder.encode_texts(["a red square"]).vectors,
    }
    for kind, vectors in rows.items():
        length = float(np.linalg.norm(vectors[0]))
        if not abs(length - 1.0) < 1e-3:
            raise CorruptBundle(f"{path}: a {kind} embeds to a vector of length {length}, not 1")
    if (golden := read_golden(bundle)) and (findings := diagnose(check_golden(encoder, golden))):
        raise ParityLost(f"{path} embeds otherwise than when it was made: {'; '.join(map(str, findings))}")
    return bundle

"""An encoder of ten lines that maps colours to vectors, and sets of coloured squares for it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.encoder import TextEmbeddings
from encoders.images import Preprocessing
from training.data.pairs import PairSet, read_pairs

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class ColourEncoder:
    """An image's vector is its mean colour, a text's that of the last colour it names."""

    name, fingerprint, precision, device, dim = "colours", "c0" * 32, "fp32", "cpu", 4
    preprocessing = Preprocessing(height=8, width=8)
    query_bank = None
    short_queries = None

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.texts = 0

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        return self._unit(pixels.mean(axis=(1, 2)))

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        self.texts += len(texts)
        named = [([word for word in text.split() if word in COLOURS] or ["white"])[-1] for text in texts]
        cut = np.array([len(text.split()) > 6 for text in texts])
        return TextEmbeddings(self._unit(np.array([COLOURS[name] for name in named])), cut)

    def _unit(self, colours: np.ndarray) -> np.ndarray:
        vectors = np.concatenate([colours, np.full((len(colours), 1), 10)], axis=1).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def colour_set(folder: Path, captions: dict[str, str], *, name: str = "squares") -> PairSet:
    """`captions`: "red-1.png" → caption; the file is a square of the colour before the dash."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in captions:
        Image.new("RGB", (12, 12), COLOURS[file.partition("-")[0]]).save(folder / file)
    rows = "".join(f"{file},{caption}\n" for file, caption in captions.items())
    (folder / "captions.csv").write_text("image,caption\n" + rows)
    return read_pairs(f"csv:{folder}/captions.csv?name={name}")


ALL_COLOURS = {f"{colour}-1.png": f"a {colour} square" for colour in COLOURS}

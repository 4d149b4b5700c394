"""What transformers itself gives in fp32: `python reference.py MODEL IMAGES TEXTS.json OUT.npz`.

Runs in the peer's environment, so that it is the very library that the peer embeds with.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor


@torch.no_grad()
def main(model_folder: Path, folder: Path, texts: Path, out: Path) -> None:
    """Unit rows of the images (by file name) and of the texts, one at a time: no padding, no batching."""
    model, processor = (
        CLIPModel.from_pretrained(model_folder).eval(),
        CLIPProcessor.from_pretrained(model_folder),
    )
    images = [
        model.get_image_features(**processor(images=Image.open(path).convert("RGB"), return_tensors="pt"))
        for path in sorted(folder.iterdir())
    ]
    captions = [
        model.get_text_features(**processor(text=text, truncation=True, return_tensors="pt"))
        for text in json.loads(texts.read_text("utf-8"))
    ]
    np.savez(out, images=_unit(images), texts=_unit(captions))


def _unit(rows: list[torch.Tensor]) -> np.ndarray:
    stacked = torch.cat(rows).numpy()
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))

"""A model as its own library loads it, and its way into a bundle: written only when the embeddings agree."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from encoders.bundle import Bundle, BundleConfig, write_bundle
from encoders.encoder import Encoder
from encoders.errors import BundleError, ImportFailed
from encoders.folders import write_durably
from encoders.golden import add_golden
from encoders.images import Preprocessing
from encoders.modalities import Modality
from encoders.texts import TokenizerSpec
from encoders.towers import TowersConfig, build_towers

MIN_AGREEMENT = 0.9999
"""Cosine below which a bundle is not the model that it was made from."""

MOST_ALIKE = 1 - 2 * (1 - MIN_AGREEMENT)
"""Cosine between different probes above which agreement proves nothing: one vector for all agrees, too."""

_PROBE_SIZES = ((101, 67), (64, 64), (67, 101), (300, 200), (63, 200))
_PROBE_TEXTS = (
    "a photo of a dog",
    "a photo of a car",
    "the red and white cat",
    "",
    "Zwei Katzen — 二匹の猫 🐈",
    "one text that is far too long, " * 400,
)
"""Two of them differ in one word: texts may lie apart by their lengths alone where no word is known."""


@dataclass(frozen=True)
class Published:
    """A model and the embeddings that its own library gives, its own preprocessing and tokenizer included.

    state: the towers' state dict, as `build_towers(towers)` names it; files: tokenizer and text configuration
    by their path in a bundle; embed_image, embed_text: one RGB image or text to its (dim,) vector.
    """

    towers: TowersConfig
    preprocessing: Preprocessing
    tokenizer: TokenizerSpec
    state: dict[str, torch.Tensor]
    files: Mapping[str, bytes]
    provenance: dict[str, Any]
    embed_image: Callable[[Image.Image], torch.Tensor]
    embed_text: Callable[[str], torch.Tensor]


def write_published(published: Published, out: Path, *, name: str) -> Bundle:
    """The bundle at `out`, after our embeddings were found to be the original's.

    Raises ImportFailed with the cosines where they are not, and leaves `out` as it was.
    """
    with tempfile.TemporaryDirectory(prefix="twinlens-import-") as folder:
        scratch = Path(folder)
        for path, content in published.files.items():
            write_durably(scratch / path, content)
        model = _towers_with_weights(published, scratch)
        config = _bundle_config(published, model, name=name)
        encoder = Encoder(
            Bundle(path=scratch, config=config),
            model,
            device=torch.device("cpu"),
            precision="fp32",
            max_batch=1,
        )
        ours = _probed(encoder)
        agreement = _agreement(published, ours)
        state = model.state_dict()
    if min(agreement.values()) < MIN_AGREEMENT:
        raise ImportFailed(
            f"{published.provenance['source']}: the bundle's embeddings are not the original's: least cosine "
            f"of {len(_PROBE_SIZES)} images {agreement['images']:.6f}, of {len(_PROBE_TEXTS)} texts "
            f"{agreement['texts']:.6f}, {MIN_AGREEMENT} is required. Please report the model"
        )
    _require_apart(ours, source=published.provenance["source"])
    provenance = {**config.provenance, "agreement": agreement}
    sealed = config.model_copy(update={"provenance": provenance})
    return add_golden(write_bundle(out, config=sealed, state=state, files=published.files))


def _probed(encoder: Encoder) -> dict[Modality, NDArray[np.float32]]:
    """Our vectors of images of odd and even sizes and of texts."""
    return {
        "images": encoder.encode_images(_probe_images()),
        "texts": encoder.encode_texts(_PROBE_TEXTS).vectors,
    }


def _agreement(published: Published, ours: Mapping[Modality, NDArray[np.float32]]) -> dict[Modality, float]:
    """Least cosine between ours and the original's."""
    with torch.inference_mode():
        theirs: dict[Modality, list[torch.Tensor]] = {
            "images": [published.embed_image(image) for image in _probe_images()],
            "texts": [published.embed_text(text) for text in _PROBE_TEXTS],
        }
    return {modality: _least_cosine(ours[modality], torch.stack(rows)) for modality, rows in theirs.items()}


def _require_apart(ours: Mapping[Modality, NDArray[np.float32]], *, source: str) -> None:
    """Raises ImportFailed where two different probes have (nearly) the same vector."""
    names = {"images": [f"{width}×{height} pixels" for width, height in _PROBE_SIZES], "texts": _PROBE_TEXTS}
    for modality, rows in ours.items():
        cosines = rows @ rows.T - 2 * np.eye(len(rows))
        one, other = map(int, np.unravel_index(np.argmax(cosines), cosines.shape))
        if cosines[one, other] > MOST_ALIKE:
            pair = " and ".join(repr(names[modality][row][:40]) for row in (one, other))
            raise ImportFailed(
                f"{source}: the {modality} {pair} get the same vector (cosine {cosines[one, other]:.6f}, at "
                f"most {MOST_ALIKE:g} is allowed), so that agreement with the original proves nothing: are the "
                "weights trained, and is the vocabulary theirs?"
            )


def _probe_images() -> list[Image.Image]:
    return [probe_image(width, height) for width, height in _PROBE_SIZES]


def probe_image(width: int, height: int) -> Image.Image:
    """An RGB image of waves and noise, the same at every call: edges, gradients and grain."""
    noise = np.random.default_rng(width * 10_000 + height).normal(0.0, 24.0, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 7.0), np.sin(y / 5.0), np.sign(np.sin((x + y) / 11.0))], axis=-1)
    return Image.fromarray(np.clip(128.0 + 90.0 * waves + noise, 0, 255).astype(np.uint8))


def library_versions(*packages: str) -> dict[str, str]:
    """What a published model was read with."""
    return {package: version(package) for package in packages}


def card_licence(folder: Path) -> str | None:
    """The licence that a model card's front matter names, where a folder holds one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf8", errors="replace").splitlines()
    if lines[:1] != ["---"]:
        return None
    front = lines[1 : lines.index("---", 1)] if "---" in lines[1:] else []
    found = (line.partition(":")[2].strip() for line in front if line.startswith("license:"))
    return next(found, None) or None


def _towers_with_weights(published: Published, scratch: Path) -> torch.nn.Module:
    source = published.provenance["source"]
    try:
        model = build_towers(published.towers, scratch)
        model.load_state_dict(published.state, strict=True)
    except (BundleError, RuntimeError) as error:
        raise ImportFailed(f"{source}: its weights do not fit the towers: {error}") from error
    bad = [key for key, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ImportFailed(f"{source}: {len(bad)} tensors hold NaN or infinity, {bad[0]} first")
    return model


def _bundle_config(published: Published, model: torch.nn.Module, *, name: str) -> BundleConfig:
    return BundleConfig(
        name=name,
        towers=published.towers,
        preprocessing=published.preprocessing,
        tokenizer=published.tokenizer,
        logit_scale=math.exp(float(model.state_dict()["logit_scale"])),
        provenance=published.provenance,
    )


def _least_cosine(ours: NDArray[np.float32], theirs: torch.Tensor) -> float:
    unit = torch.nn.functional.normalize(theirs.double(), dim=-1).numpy()
    return round(float((ours.astype(np.float64) * unit).sum(axis=1).min()), 8)

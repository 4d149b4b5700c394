"""The two modalities by name: what a bank, an adaptation or golden inputs are of. Imports nothing."""

from typing import Literal

Modality = Literal["images", "texts"]
MODALITIES: tuple[Modality, ...] = ("images", "texts")

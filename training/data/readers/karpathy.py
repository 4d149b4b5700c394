"""Karpathy's `dataset_{coco,flickr8k,flickr30k}.json`, as published with NeuralTalk.

`{"images": [{"filename", "filepath" (coco), "split", "sentences": [{"raw", …}, …]}, …], "dataset": …}`.
Captions are the `raw` sentences: the first five, which is the protocol for COCO (some of its photos have
six or seven) and all there are for Flickr. `restval` counts as `train`.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from training.data.readers.documents import elements, field
from training.data.readers.listed import ListedImage, Listing, files, normalised
from training.data.readers.spec import Spec, file_and_suffix
from training.errors import BadRow, BadSpec, MissingColumn

CAPTIONS_AN_IMAGE = 5
SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}
# Beside the JSON: our own name, then the folders that the datasets unpack to.
FOLDERS = ("images", "Flicker8k_Dataset", "flickr30k-images", "flickr30k_images", ".")


def read_karpathy(spec: Spec) -> Listing:
    path, suffix = file_and_suffix(spec.body)
    wanted = suffix or spec.options.get("split")
    folder = spec.folder("images")
    folders = (folder,) if folder else tuple(path.parent / name for name in FOLDERS)
    seen: Counter[str] = Counter()
    for number, image in elements(path, prefix="images.item"):
        split = field(image, "split", str, path=path, number=number)
        seen[split] += 1
        if wanted in (None, split, SPLIT_OF.get(split)):
            yield _listed(image, folders=folders, path=path, number=number)
    if not seen:
        raise MissingColumn(f"{path}: no 'images' list: not a Karpathy dataset_*.json")
    if wanted and wanted not in {*seen, *(SPLIT_OF.get(split) for split in seen)}:
        raise BadSpec(f"{spec.text}: no split {wanted!r}; {path} has {_counts(seen)}")


def _listed(image: dict[str, Any], *, folders: tuple[Path, ...], path: Path, number: int) -> ListedImage:
    filename = field(image, "filename", str, path=path, number=number)
    sentences = field(image, "sentences", list, path=path, number=number)[:CAPTIONS_AN_IMAGE]
    try:
        captions = tuple(filter(None, (normalised(sentence["raw"]) for sentence in sentences)))
    except (TypeError, KeyError, AttributeError) as error:
        raise BadRow(path, number, value=sentences, problem="a sentence without its 'raw' text") from error
    parts = [part for part in (image.get("filepath"), filename) if part]
    places = [folder.joinpath(*parts) for folder in folders]
    if len(parts) > 1:
        places += [folder / filename for folder in folders]
    return ListedImage(filename, captions, files(*places))


def _counts(seen: Counter[str]) -> str:
    return ", ".join(f"{split} ({count})" for split, count in seen.items())

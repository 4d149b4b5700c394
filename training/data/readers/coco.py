"""COCO `captions_*.json`: `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`.

All captions of a photo are kept, in the order of the annotations: `karpathy:` is the reader that cuts to
five. Photos come in the order of `images`.
"""

from collections import defaultdict
from pathlib import Path

from training.data.readers.documents import elements, field
from training.data.readers.listed import ListedImage, Listing, files, normalised
from training.data.readers.spec import Spec, file_and_folder
from training.errors import MissingColumn


def read_coco(spec: Spec) -> Listing:
    path, folder = file_and_folder(spec)
    captions = _captions_by_image(path)
    for number, image in elements(path, prefix="images.item"):
        name = field(image, "file_name", str, path=path, number=number)
        key = field(image, "id", int, path=path, number=number)
        yield ListedImage(name, tuple(captions.pop(key, ())), files(folder / name))
    for key, orphans in captions.items():
        yield ListedImage(str(key), tuple(orphans), fault="annotated, but not among the file's images")


def _captions_by_image(path: Path) -> dict[int, list[str]]:
    captions: defaultdict[int, list[str]] = defaultdict(list)
    for number, annotation in elements(path, prefix="annotations.item"):
        key = field(annotation, "image_id", int, path=path, number=number)
        text = normalised(field(annotation, "caption", str, path=path, number=number))
        if text:
            captions[key].append(text)
    if not captions:
        raise MissingColumn(f"{path}: no 'annotations' with captions: not a COCO captions_*.json")
    return captions

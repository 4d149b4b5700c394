"""Images with one class each, read from a one-line spec: `read_labelled("folder:photos")`.

    folder:<folder>                        a folder of class folders: photos/golden_retriever/1.jpg
    csv:<file>  jsonl:<file>  parquet:<…>  the columns image and class, as for pairs (`training.data.pairs`)

Options follow a `?`, joined by `&`: `class=` and `image=` columns, `images=` folder, `split=`, `limit=` images,
`name=` to show in reports, and `classes=`, a file of the classes, one a line: a label, or a label, a tab
and the name to show the encoder ("n02099601<TAB>golden retriever"). Without it, classes are those of the
images that are kept, and their labels are the names, with blanks for underscores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.pairs import CaptionedImage, FolderNames, MissingImage, digest_of, set_name
from training.data.readers.class_folders import read_class_folders
from training.data.readers.listed import Listing, normalised
from training.data.readers.spec import Spec, lines_of, parse_spec
from training.data.readers.tables import read_csv, read_jsonl, read_parquet
from training.data.templates import CLIP_TEMPLATES, read_templates
from training.errors import BadSpec, EmptyPairSet, PairsError

TABLE_READERS = {"csv": read_csv, "jsonl": read_jsonl, "parquet": read_parquet}
TABLE_OPTIONS = frozenset({"images", "image", "class", "split"})
COMMON_OPTIONS = frozenset({"limit", "name", "classes"})


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """`images` carry no captions; image_class (images,) is the row of each one's class in `classes`.

    `classes` are the names shown to an encoder, all different.
    """

    name: str
    spec: str
    images: tuple[CaptionedImage, ...]
    image_class: NDArray[np.int64]
    classes: tuple[str, ...]
    missing: tuple[MissingImage, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over ids and class names in their order."""
        rows = zip(self.images, self.image_class, strict=True)
        lines = ((image.image_id, self.classes[row]) for image, row in rows)
        return digest_of([("classes", *self.classes), *lines])


@dataclass(frozen=True, eq=False)
class ZeroShotTask:
    sets: tuple[LabelledSet, ...]
    templates: tuple[str, ...]


def read_zero_shot(specs: Sequence[str], templates: Path | None = None) -> ZeroShotTask:
    """All sets, with the file's templates or CLIP's. Raises BadSpec where two sets share a name."""
    sets = tuple(read_labelled(spec) for spec in specs)
    names = [each.name for each in sets]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise BadSpec(f"two sets of classes are called {repeated!r}: name one, by ?name=… in its spec")
    return ZeroShotTask(sets, read_templates(templates) if templates else CLIP_TEMPLATES)


def read_labelled(spec: str) -> LabelledSet:
    """Read the set that `spec` (see the module) names.

    Raises a `PairsError` for a spec, file or row that cannot be read, an image with two classes, a label that
    `classes=` lacks, two classes of one name, and fewer than two classes; an image without file or class goes
    to `missing`.
    """
    parsed = parse_spec(spec)
    labels, missing = _labels(_listing(parsed), parsed)
    names = _names(parsed, [label for _, label in labels])
    rows = {label: row for row, label in enumerate(names)}
    return LabelledSet(
        name=set_name(parsed),
        spec=spec,
        images=tuple(image for image, _ in labels),
        image_class=np.array([rows[label] for _, label in labels], dtype=np.int64),
        classes=tuple(names.values()),
        missing=tuple(missing),
    )


def _listing(spec: Spec) -> Listing:
    tables = spec.format in TABLE_READERS
    if not tables and spec.format != "folder":
        raise BadSpec(
            f"{spec.text}: {spec.format!r} holds no classes; there are folder, {', '.join(TABLE_READERS)}"
        )
    options = COMMON_OPTIONS | (TABLE_OPTIONS if tables else frozenset())
    if unknown := spec.options.keys() - options:
        known = ", ".join(f"{name}=" for name in sorted(options))
        raise BadSpec(f"{spec.text}: no option {', '.join(sorted(unknown))} for classes; it has {known}")
    if not tables:
        return read_class_folders(spec)
    of_pairs = {name: value for name, value in spec.options.items() if name != "class"}
    column = spec.option("class", "class")
    return TABLE_READERS[spec.format](Spec(spec.text, spec.format, spec.body, {**of_pairs, "caption": column}))


def _labels(listing: Listing, spec: Spec) -> tuple[list[tuple[CaptionedImage, str]], list[MissingImage]]:
    """(the images with a file, each with its label; those that cannot be used)."""
    labels: list[tuple[CaptionedImage, str]] = []
    missing: list[MissingImage] = []
    folders, limit = FolderNames(), spec.number("limit", 0)
    for image in listing:
        if len(image.captions) > 1:
            raise PairsError(
                f"{spec.text}: {image.image_id} has {len(image.captions)} classes, "
                f"{image.captions[0]!r} and {image.captions[1]!r} among them: give it one"
            )
        source = next((place for place in image.places if folders.hold(place)), None)
        if source is None or not image.captions:
            reason = "no class" if source else f"no file {image.places[0].path}"
            missing.append(MissingImage(image.image_id, reason))
            continue
        labels.append((CaptionedImage(image.image_id, (), source), image.captions[0]))
        if len(labels) == limit:
            break
    if not labels:
        first = f"; the first: {missing[0].image_id} ({missing[0].reason})" if missing else ""
        raise EmptyPairSet(f"{spec.text}: no image with a class is left{first}")
    return labels, missing


def _names(spec: Spec, labels: list[str]) -> Mapping[str, str]:
    """Label → the name to show, in the order of `classes=`, else alphabetically."""
    if "classes" in spec.options:
        names = _read_classes(spec.options["classes"])
        if unknown := next((label for label in labels if label not in names), None):
            raise PairsError(f"{spec.text}: {spec.options['classes']} lacks the class {unknown!r}")
    else:
        names = {label: normalised(label.replace("_", " ")) for label in sorted(set(labels))}
    first: dict[str, str] = {}
    for label, name in names.items():
        if first.setdefault(name.casefold(), label) != label:
            raise PairsError(f"{spec.text}: the classes {first[name.casefold()]!r} and {label!r} have one name")
    if len(names) < 2:
        raise PairsError(f"{spec.text}: one class, {next(iter(names))!r}; choosing takes two or more")
    return names


def _read_classes(path: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for line in lines_of(path):
        label, _, name = line.partition("\t")
        label = normalised(label)
        if not label:
            continue
        if label in names:
            raise PairsError(f"{path}: the class {label!r} comes twice")
        names[label] = normalised(name) or normalised(label.replace("_", " "))
    return names

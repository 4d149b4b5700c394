"""`python -m training augment`: a recipe's augmentation on your own images. The work is `sheet`'s."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.errors import TwinlensError
from training.console import errors_shown
from training.errors import EmptyPairSet, MissingFile

if TYPE_CHECKING:
    from training.fit.views.views import TrainingImage

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def augment_command(
    recipe: Annotated[Path, typer.Argument(help="TOML file: see docs/training.md and training/recipes/.")],
    *,
    images: Annotated[Path, typer.Option(help="A folder of images.")],
    out: Annotated[Path, typer.Option(help="The sheet: a PNG file.")],
    views: Annotated[int, typer.Option(min=1, max=100, help="Views of each image beside the plain one.")] = 8,
    count: Annotated[int, typer.Option(min=1, max=100, help="Images shown: the first by name.")] = 6,
) -> None:
    """Draw a contact sheet: each source's augmentation on images of your own, the plain image first."""
    with errors_shown():
        names = _draw(recipe, images, out, views=views, count=count)
    typer.echo(f"{out}: {len(names)} images, {views} views each: {', '.join(names)}")


def _draw(recipe: Path, folder: Path, out: Path, *, views: int, count: int) -> list[str]:
    from training.files import replacing
    from training.fit.contact_sheet import contact_sheet, pipelines_of
    from training.fit.recipe import Recipe
    from training.fit.start import preprocessing_of

    read = Recipe.read(recipe)
    found = _images(folder, count)
    sheet = contact_sheet(
        found,
        pipelines_of({f"{place}. {one.pairs}": one for place, one in enumerate(read.sources, 1)}),
        preprocessing=preprocessing_of(read.start),
        views=views,
        seed=read.seed,
    )
    with replacing(out) as file:
        sheet.save(file, "PNG")
    return [name for name, _ in found]


def _images(folder: Path, count: int) -> "list[tuple[str, TrainingImage]]":
    """The first `count` that decode, by name; those that do not are named and left out."""
    from training.data.pairs import ImageSource
    from training.fit.views.views import TrainingImage, image_digest

    if not folder.is_dir():
        raise MissingFile(f"{folder}: no such folder")
    found: list[tuple[str, TrainingImage]] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        source = ImageSource(path)
        try:
            found.append((path.name, TrainingImage(source, image_digest(source), flippable=True)))
        except TwinlensError as error:
            typer.echo(f"left out: {path.name} ({error})", err=True)
        if len(found) == count:
            break
    if not found:
        raise EmptyPairSet(f"{folder}: no image in it decodes ({', '.join(sorted(SUFFIXES))})")
    return found

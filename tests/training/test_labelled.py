import json
from pathlib import Path

import pytest
from PIL import Image

from training.data.labelled import read_labelled
from training.data.templates import read_templates
from training.errors import PairsError, TrainingError


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three images of a golden_retriever (one deeper), two of a cat, and what is no image."""
    for name in ("golden_retriever/1.png", "golden_retriever/2.png", "golden_retriever/in/3.JPG", "cat/9.png"):
        write_image(tmp_path / "photos" / name)
    write_image(tmp_path / "photos" / "cat" / ".hidden.png")
    write_image(tmp_path / "photos" / "loose.png")
    write_image(tmp_path / "photos" / "cat" / "8.png")
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "empty").mkdir()
    return tmp_path / "photos"


def labels(spec: str) -> dict[str, str]:
    labelled = read_labelled(spec)
    rows = zip(labelled.images, labelled.image_class, strict=True)
    return {image.image_id: labelled.classes[row] for image, row in rows}


def test_a_folder_of_class_folders_gives_each_image_the_folders_name(folders: Path) -> None:
    assert labels(f"folder:{folders}") == {
        "cat/8.png": "cat",
        "golden_retriever/1.png": "golden retriever",
        "cat/9.png": "cat",
        "golden_retriever/2.png": "golden retriever",
        "golden_retriever/in/3.JPG": "golden retriever",
    }
    assert set(labels(f"folder:{folders}?limit=2").values()) == {"cat", "golden retriever"}
    assert read_labelled(f"folder:{folders}").name == "photos"


def test_a_column_of_a_table_holds_the_class(tmp_path: Path) -> None:
    for name in "abc":
        write_image(tmp_path / "images" / f"{name}.png")
    (tmp_path / "set.csv").write_text("image,class\na.png,cat\nb.png,dog\nc.png,\ngone.png,cat\n")
    labelled = read_labelled(f"csv:{tmp_path}/set.csv?name=pets")
    assert [image.image_id for image in labelled.images] == ["a.png", "b.png"]
    assert [(each.image_id, each.reason.split()[0]) for each in labelled.missing] == [
        ("c.png", "no"),
        ("gone.png", "no"),
    ]
    rows = [{"image": "images/a.png", "title": "Tom", "category": "cat"}]
    rows += [{"image": "images/b.png", "title": "Rex", "category": "dog"}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert labels(f"jsonl:{tmp_path}/items.jsonl?class=category") == {
        "images/a.png": "cat",
        "images/b.png": "dog",
    }


def test_a_file_of_classes_gives_names_order_and_classes_without_images(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("golden_retriever\tgolden dog\nowl\n\ncat\n")
    spec = f"folder:{folders}?classes={tmp_path}/classes.txt"
    assert read_labelled(spec).classes == ("golden dog", "owl", "cat")
    assert labels(spec)["golden_retriever/1.png"] == "golden dog"
    assert read_labelled(spec).digest != read_labelled(f"folder:{folders}").digest


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ("image,class\na.png,cat\na.png,dog", "", "a.png has 2 classes, 'cat' and 'dog'"),
        ("image,class\na.png,cat\nb.png,cat", "", "one class, 'cat'"),
        ("image,class\na.png,old_cat\nb.png,old cat", "", "have one name"),
        ("image,class\na.png,cat\nb.png,dog", "?class=kind", "no column 'kind'"),
        ("image,class\na.png,cat\nb.png,dog", "?classes={folder}/some.txt", "lacks the class 'dog'"),
        ("image,class\na.png,cat\nb.png,dog", "?caption=class", "no option caption"),
        ("image,class\nx.png,cat\ny.png,dog", "", "no image with a class is left; the first: x.png"),
    ],
)
def test_what_is_no_choice_of_classes_is_refused_and_named(
    tmp_path: Path, rows: str, options: str, said: str
) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    (tmp_path / "set.csv").write_text(rows)
    (tmp_path / "some.txt").write_text("cat\n")
    with pytest.raises(PairsError, match=r"set\.csv") as raised:
        read_labelled(f"csv:{tmp_path}/set.csv{options.format(folder=tmp_path)}")
    assert said in str(raised.value)


def test_other_formats_and_folders_without_classes_say_what_is_needed(tmp_path: Path) -> None:
    write_image(tmp_path / "loose.png")
    with pytest.raises(PairsError, match="one folder a class is needed"):
        read_labelled(f"folder:{tmp_path}")
    with pytest.raises(PairsError, match="'coco' holds no classes; there are folder, csv, jsonl, parquet"):
        read_labelled("coco:a.json:b")


def test_templates_come_from_a_file_and_each_takes_the_name_once(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {}.\n\n  {} \na photo of a {}.\n")
    assert read_templates(file) == ("a photo of a {}.", "{}")
    file.write_text("a photo\n")
    with pytest.raises(TrainingError, match=r"'a photo' must have \{\} once"):
        read_templates(file)
    file.write_text("\n")
    with pytest.raises(TrainingError, match="no template"):
        read_templates(file)

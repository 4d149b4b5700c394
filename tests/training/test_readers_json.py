"""Karpathy's JSON, COCO's captions and Visual Genome's regions, in the form in which they were published."""

import json
import shutil
from pathlib import Path

import pytest

from training.data.pairs import read_pairs, write_manifest
from training.errors import BadRow, BadSpec, EmptyPairSet, MissingColumn, MissingFile

FIXTURES = Path(__file__).parent / "fixtures"


def put(folder: Path, *names: str) -> Path:
    """Files that exist; nothing here decodes them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"an image")
    return folder


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """`dataset_coco.json` with its four photos in the folders that `filepath` names."""
    names = ["val2014/COCO_val2014_000000000001.jpg", "train2014/COCO_train2014_000000000002.jpg"]
    names += [f"val2014/COCO_val2014_00000000000{number}.jpg" for number in (3, 4)]
    put(tmp_path, *names)
    shutil.copy(FIXTURES / "dataset_coco.json", tmp_path)
    return tmp_path / "dataset_coco.json"


def test_karpathy_keeps_the_first_five_raw_sentences_with_white_space_normalised(coco: Path) -> None:
    (image,) = read_pairs(f"karpathy:{coco}:test").images
    assert image.image_id == "COCO_val2014_000000000001.jpg"
    assert image.source.path == coco.parent / "val2014" / image.image_id
    assert image.captions == (
        "A man rides a motorcycle.",
        "A motorcycle on a dirt road.",
        "Someone on a bike.",
        "Someone on a bike.",
        "A rider stops.",
    )


def test_karpathy_restval_counts_as_train_and_stays_reachable_by_name(coco: Path) -> None:
    assert [image.captions[0] for image in read_pairs(f"karpathy:{coco}:train").images] == [
        "A bowl of rice.",
        "Two zebras.",
    ]
    assert len(read_pairs(f"karpathy:{coco}:restval").images) == 1
    assert len(read_pairs(f"karpathy:{coco}").images) == 4


def test_karpathy_flickr_finds_its_photos_beside_the_file_or_where_it_is_told(tmp_path: Path) -> None:
    file = shutil.copy(FIXTURES / "dataset_flickr8k.json", tmp_path)
    beside = put(tmp_path / "Flicker8k_Dataset", "1000268201_693b08cb0e.jpg")
    (image,) = read_pairs(f"karpathy:{file}:train").images
    assert (image.source.path.parent, image.captions) == (beside, ("A dog jumps .", "The dog is in the air"))
    told = put(tmp_path / "elsewhere", "1001773457_577c3a7d70.jpg")
    (image,) = read_pairs(f"karpathy:{file}:test?images={told}").images
    assert image.source.path.parent == told


def test_karpathy_names_the_splits_there_are_when_asked_for_another(coco: Path) -> None:
    with pytest.raises(BadSpec, match=r"no split 'tset'.*test \(1\), train \(1\), restval \(1\), val \(1\)"):
        read_pairs(f"karpathy:{coco}:tset")


def test_a_set_whose_photos_all_lack_says_where_the_first_was_looked_for(tmp_path: Path) -> None:
    file = shutil.copy(FIXTURES / "dataset_flickr8k.json", tmp_path)
    with pytest.raises(EmptyPairSet, match=r"1 cannot be used.*no file .*images/1000268201_693b08cb0e\.jpg"):
        read_pairs(f"karpathy:{file}:train")


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (
            '{"images": [{"filename": "a.jpg", "split": "train", "sentences"',
            BadRow,
            "row 1: not JSON, or cut short",
        ),
        ('{"images": [{"filename": "a.jpg", "sentences": []}]}', BadRow, "row 1: no 'split' among its fields"),
        (
            '{"images": [{"filename": 7, "split": "train", "sentences": []}]}',
            BadRow,
            "'filename' is not a str",
        ),
        (
            '{"images": [{"filename": "a.jpg", "split": "train", "sentences": [{}]}]}',
            BadRow,
            "without its",
        ),
        ('{"images": [3]}', BadRow, "row 1: not a JSON object: '3'"),
        ('{"annotations": []}', MissingColumn, "not a Karpathy dataset"),
        ("", BadRow, "not JSON"),
    ],
)
def test_a_karpathy_file_that_is_none_is_refused_with_its_row(
    tmp_path: Path, content: str, error: type[Exception], words: str
) -> None:
    file = tmp_path / "dataset.json"
    file.write_text(content)
    with pytest.raises(error, match=words) as caught:
        read_pairs(f"karpathy:{file}:train")
    assert str(file) in str(caught.value)


def test_coco_joins_annotations_to_photos_and_names_what_does_not_join(tmp_path: Path) -> None:
    put(tmp_path, "000000000139.jpg", "000000000285.jpg", "000000000632.jpg")
    pairs = read_pairs(f"coco:{FIXTURES}/captions_val2017.json:{tmp_path}")
    assert [(image.image_id, image.captions) for image in pairs.images] == [
        ("000000000139.jpg", ("A room with a table and a television.",)),
        ("000000000285.jpg", ("A bear in the grass.", "A big, burly bear.")),
    ]
    assert [(image.image_id, image.reason) for image in pairs.missing] == [
        ("000000000632.jpg", "no caption"),
        ("999", "annotated, but not among the file's images"),
    ]


def test_coco_instances_are_told_from_captions(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text('{"images": [], "annotations": [{"image_id": 1, "category_id": 3}]}')
    with pytest.raises(BadRow, match="row 1: no 'caption' among its fields: 'image_id, category_id'"):
        read_pairs(f"coco:{file}:{tmp_path}")


def test_coco_without_its_folder_says_so(tmp_path: Path) -> None:
    file = FIXTURES / "captions_val2017.json"
    with pytest.raises(BadSpec, match="the images' folder is missing: coco:<file>:<folder>"):
        read_pairs(f"coco:{file}")
    with pytest.raises(MissingFile, match="no such folder"):
        read_pairs(f"coco:{file}:{tmp_path}/nowhere")


@pytest.fixture
def visual_genome(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / "vg", tmp_path / "vg")
    put(tmp_path / "vg", "VG_100K_2/1.jpg", "VG_100K/2.jpg", "VG_100K/3.jpg", "VG_100K/4.jpg")
    return tmp_path / "vg"


def test_visual_genome_takes_the_five_largest_phrases_of_photos_outside_coco(
    visual_genome: Path,
) -> None:
    pairs = read_pairs(f"vg:{visual_genome}")
    assert [image.image_id for image in pairs.images] == ["VG_100K_2/1.jpg", "VG_100K/4.jpg"]
    assert pairs.images[0].captions == (
        "a street with parked cars",
        "The clock is green",
        "a man crossing the street",
        "shade of a tall tree",
        "bikes along the sidewalk here",
    )


def test_visual_genome_chooses_the_same_sample_whichever_photos_are_there(visual_genome: Path) -> None:
    chosen = {seed: read_pairs(f"vg:{visual_genome}?sample=1&seed={seed}").images[0] for seed in range(8)}
    assert len({image.image_id for image in chosen.values()}) == 2
    seed = next(seed for seed, image in chosen.items() if image.image_id == "VG_100K/4.jpg")
    (visual_genome / "VG_100K/4.jpg").unlink()
    with pytest.raises(EmptyPairSet, match=r"1 cannot be used, the first: VG_100K/4\.jpg"):
        read_pairs(f"vg:{visual_genome}?sample=1&seed={seed}")


def test_a_published_manifest_reads_back_as_the_same_set(visual_genome: Path, tmp_path: Path) -> None:
    pairs = read_pairs(f"vg:{visual_genome}")
    write_manifest(pairs, tmp_path / "manifest.jsonl")
    again = read_pairs(f"jsonl:{tmp_path}/manifest.jsonl?images={visual_genome}")
    assert again.digest == pairs.digest
    assert again.images == pairs.images


def test_visual_genome_without_coco_ids_is_refused(visual_genome: Path) -> None:
    (visual_genome / "image_data.json").write_text(json.dumps([{"image_id": 1, "url": "VG_100K/1.jpg"}]))
    with pytest.raises(MissingColumn, match="row 1: no 'coco_id'"):
        read_pairs(f"vg:{visual_genome}")

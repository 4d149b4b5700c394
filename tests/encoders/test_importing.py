"""Imported bundles embed as the original library does, its own preprocessing and tokenizer included."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from encoders.__main__ import app
from encoders.bundle import Bundle
from encoders.encoder import Encoder
from encoders.errors import ImportFailed
from encoders.importing.published import probe_image
from encoders.importing.run import import_model
from encoders.importing.settings import file_settings
from tests.encoders.conftest import (
    RESNET,
    TEXT,
    TIMM,
    VIT,
    open_clip_config,
    random_open_clip,
    save_local_dir,
    save_text_folder,
    save_transformers_clip,
)

SIZES = [(101, 67), (64, 64), (67, 101), (300, 200), (63, 200), (65, 64), (640, 65)]
TEXTS = ["a dog", "", "Ünï — 二匹の猫 &amp; 🐈", "The RED dog,  and the cat!\n", "a very long text " * 40]
SAME = 0.99999


def sample_images() -> list[Image.Image]:
    return [probe_image(width, height) for width, height in SIZES]


def least_cosine(ours: np.ndarray, theirs: list[torch.Tensor]) -> float:
    unit = torch.nn.functional.normalize(torch.stack(theirs).double(), dim=-1).numpy()
    return float((ours * unit).sum(axis=1).min())


def assert_far_apart(encoder: Encoder) -> None:
    """Random weights that embed all alike would make any comparison pass."""
    for rows in (encoder.encode_images(sample_images()), encoder.encode_texts(TEXTS).vectors):
        similar = rows @ rows.T - np.eye(len(rows))
        assert similar.max() < 1 - 20 * (1 - SAME)


def assert_same_as_open_clip(bundle: Bundle, name: str, **options: Any) -> None:
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained_text=False, **options)
    tokenizer = open_clip.get_tokenizer(name)
    encoder = Encoder.load(bundle, device="cpu", max_batch=3)
    with torch.inference_mode():
        images = [model.eval().encode_image(transform(sample)[None])[0] for sample in sample_images()]
        texts = [model.encode_text(tokenizer([text]))[0] for text in TEXTS]
    assert least_cosine(encoder.encode_images(sample_images()), images) >= SAME
    assert least_cosine(encoder.encode_texts(TEXTS).vectors, texts) >= SAME
    assert_far_apart(encoder)


CONFIGS = {
    "a ViT that cuts the centre": (open_clip_config(VIT, TEXT), {}),
    "a ViT with QuickGELU that squashes": (
        open_clip_config(VIT, TEXT, quick_gelu=True),
        {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
    ),
    "a tall ViT that cuts the centre": (open_clip_config({**VIT, "image_size": [96, 64]}, TEXT), {}),
    "a ViT that fits all in": (
        open_clip_config(VIT, TEXT, custom_text=True, init_logit_scale=2.3, init_logit_bias=-10.0),
        {"resize_mode": "longest", "fill_color": 114},
    ),
    "a modified ResNet": (open_clip_config(RESNET, TEXT), {"mean": [0.0] * 3, "std": [1.0] * 3}),
    "a timm tower beside CLIP's text tower": (open_clip_config(TIMM, TEXT), {"interpolation": "bilinear"}),
}


@pytest.mark.parametrize(("config", "preprocess"), CONFIGS.values(), ids=CONFIGS.keys())
def test_an_open_clip_folder_embeds_as_in_open_clip(
    tmp_path: Path, config: dict[str, Any], preprocess: dict[str, Any]
) -> None:
    folder = save_local_dir(tmp_path / "published", config, preprocess)
    bundle = import_model(f"local-dir:{folder}", out=tmp_path / "bundle", name="imported")
    assert_same_as_open_clip(bundle, f"local-dir:{folder}")


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler"])
def test_an_open_clip_model_with_a_transformers_text_tower_embeds_as_in_open_clip(
    tmp_path: Path, pooler: str
) -> None:
    folder = save_text_folder(tmp_path / "published")
    text = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": str(folder),
        "hf_proj_type": "mlp",
        "hf_pooler_type": pooler,
        "context_length": 32,
    }
    save_local_dir(folder, open_clip_config(VIT, text))
    bundle = import_model(str(folder), out=tmp_path / "bundle", name="imported")
    assert bundle.config.tokenizer.pad_to == "longest"
    assert "text/config.json" in bundle.files
    assert_same_as_open_clip(bundle, f"local-dir:{folder}")


QUICK = {"quick_gelu": True, "mean": [0.5] * 3, "std": [0.5] * 3}


def publish_tags(monkeypatch: pytest.MonkeyPatch, architecture: str, **tags: dict[str, Any]) -> None:
    """Makes open_clip know tags of an architecture, by what their weights were trained with."""
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, architecture, tags)


def save_sidecar(folder: Path, preprocess: dict[str, Any], **model: Any) -> None:
    config = {**open_clip_config(VIT, TEXT), **model}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A training run's weights, which say nothing of how they were trained."""
    (tmp_path / "run").mkdir()
    state = random_open_clip(open_clip_config(VIT, TEXT)).state_dict()
    named = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": named}, tmp_path / "run" / "epoch_3.pt")
    return tmp_path / "run" / "epoch_3.pt"


def test_a_checkpoint_takes_what_it_was_trained_with_from_beside_it(
    tmp_path: Path, registered: str, checkpoint: Path
) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(ImportFailed, match="name it with --model"):
        import_model(str(checkpoint), out=out, name="imported")
    save_sidecar(checkpoint.parent, {"mean": [0.5] * 3, "std": [0.4] * 3}, quick_gelu=True)
    bundle = import_model(str(checkpoint), out=out, name="imported", architecture=registered)
    assert (bundle.config.towers.quick_gelu, bundle.config.preprocessing.std) == (True, (0.4, 0.4, 0.4))
    assert "open_clip_config.json" in bundle.config.provenance["settings"]
    trained = {"image_mean": [0.5] * 3, "image_std": [0.4] * 3, "force_quick_gelu": True}
    assert_same_as_open_clip(bundle, registered, pretrained=str(checkpoint), **trained)
    save_sidecar(checkpoint.parent, {"mean": [0.5] * 3, "std": [0.4] * 3}, embed_dim=48)
    with pytest.raises(ImportFailed, match="is of another model than Tiny-16: embed_dim differ"):
        import_model(str(checkpoint), out=tmp_path / "b", name="imported", architecture=registered)
    save_sidecar(checkpoint.parent, {})
    with pytest.raises(ImportFailed, match="preprocess_cfg lacks mean and std"):
        import_model(str(checkpoint), out=tmp_path / "b", name="imported", architecture=registered)


def test_a_checkpoint_takes_what_all_published_tags_agree_on(
    tmp_path: Path, registered: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_tags(monkeypatch, registered, openai=QUICK, metaclip={**QUICK, "url": "elsewhere"})
    out = tmp_path / "bundle"
    bundle = import_model(str(checkpoint), out=out, name="imported", architecture=registered)
    assert "all published tags of Tiny-16 agree on (openai, metaclip)" in bundle.config.provenance["settings"]
    trained = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "force_quick_gelu": True}
    assert_same_as_open_clip(bundle, registered, pretrained=str(checkpoint), **trained)


def test_a_checkpoint_whose_training_nothing_tells_is_asked_about(
    tmp_path: Path, registered: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(ImportFailed, match="Tiny-16 has no published tag that would tell"):
        import_model(str(checkpoint), out=out, name="imported", architecture=registered)
    publish_tags(monkeypatch, registered, openai=QUICK, laion={"url": "elsewhere"})
    with pytest.raises(ImportFailed, match=r"QuickGELU, .*: openai; GELU, .*: laion.*--like") as asked:
        import_model(str(checkpoint), out=out, name="imported", architecture=registered)
    assert "(0.5, 0.5, 0.5)" in str(asked.value).replace("[", "(").replace("]", ")")
    assert not out.exists()
    bundle = import_model(str(checkpoint), out=out, name="imported", architecture=registered, like="openai")
    assert bundle.config.towers.quick_gelu
    assert bundle.config.preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(ImportFailed, match=r"no tag 'absent' for Tiny-16; it has openai, laion"):
        import_model(str(checkpoint), out=out, name="imported", architecture=registered, like="absent")


def test_of_the_published_tags_those_that_differ_are_asked_about() -> None:
    """What open_clip publishes: a name alone would have been wrong for 83 of 196 tags."""
    for architecture, tags in (
        ("ViT-B-32", ("openai", "laion2b_e16")),
        ("ViT-L-14", ("openai", "laion2b_s32b_b82k")),
    ):
        with pytest.raises(ImportFailed, match="--like") as asked:
            file_settings(Path("weights.pt"), architecture=architecture)
        assert all(tag in str(asked.value) for tag in tags)
    agreed = file_settings(Path("weights.pt"), architecture="ViT-B-16-SigLIP")
    assert agreed.preprocessing["mean"] == (0.5, 0.5, 0.5)
    assert file_settings(Path("weights.pt"), architecture="ViT-B-32", like="openai").quick_gelu


def test_a_tag_is_imported_with_the_activation_that_its_weights_were_trained_with(
    tmp_path: Path, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = save_local_dir(tmp_path / "published", open_clip_config(VIT, TEXT, quick_gelu=True))
    weights = published / "open_clip_model.safetensors"
    tag = {"file": str(weights), "quick_gelu": True, "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, registered, {"openai": tag})
    bundle = import_model(f"{registered}/openai", out=tmp_path / "bundle", name="imported")
    assert bundle.config.towers.quick_gelu
    assert bundle.config.preprocessing.resize == "squash"
    assert_same_as_open_clip(bundle, registered, pretrained="openai", force_quick_gelu=True)
    with pytest.raises(ImportFailed, match=r"has no tag 'laion2b'.*it has openai"):
        import_model(f"{registered}/laion2b", out=tmp_path / "bundle", name="imported")


def test_a_hub_model_is_imported_from_the_cache_with_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--someone--tiny"
    save_local_dir(repository / "snapshots" / ("0" * 40), open_clip_config(VIT, TEXT))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    bundle = import_model(
        "hf-hub:someone/tiny", out=tmp_path / "bundle", name="imported", cache=tmp_path / "cache"
    )
    assert_same_as_open_clip(bundle, f"local-dir:{repository / 'snapshots' / ('0' * 40)}")
    with pytest.raises(ImportFailed, match="hf-hub:someone/absent"):
        import_model("hf-hub:someone/absent", out=tmp_path / "b", name="imported", cache=tmp_path / "cache")


PROCESSORS: dict[str, dict[str, Any]] = {
    "shortest edge, then the centre": {},
    "a shortest edge larger than the crop": {"size": {"shortest_edge": 73}},
    "squashed, bilinear, other statistics": {
        "size": {"height": 64, "width": 64},
        "do_center_crop": False,
        "resample": 2,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    },
    "not normalised": {"do_normalize": False},
}


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_a_transformers_clip_folder_embeds_as_in_transformers(
    tmp_path: Path, processor: dict[str, Any]
) -> None:
    from transformers import AutoProcessor, CLIPImageProcessorPil, CLIPModel

    folder = save_transformers_clip(tmp_path / "published", **processor)
    bundle = import_model(str(folder), out=tmp_path / "bundle", name="imported")
    encoder = Encoder.load(bundle, device="cpu")
    model, theirs = CLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    ours = encoder.encode_images(sample_images())
    # AutoProcessor gives the torchvision one, whose pixels differ from Pillow's, and ours, by up to one level.
    for image_processor, bound in ((theirs, SAME), (CLIPImageProcessorPil.from_pretrained(folder), 1 - 1e-6)):
        with torch.inference_mode():
            inputs = [image_processor(images=sample, return_tensors="pt") for sample in sample_images()]
            images = [model.get_image_features(**each).pooler_output[0] for each in inputs]
        assert least_cosine(ours, images) >= bound
    with torch.inference_mode():
        tokens = theirs(text=TEXTS, return_tensors="pt", padding=True, truncation=True)
        texts = list(model.get_text_features(**tokens).pooler_output)
    assert_far_apart(encoder)
    embedded = encoder.encode_texts(TEXTS)
    assert least_cosine(embedded.vectors, texts) >= SAME
    assert embedded.truncated.tolist() == [False, False, True, False, True]


def test_both_of_the_processors_that_transformers_has_for_clip_give_our_pixels(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPImageProcessorPil

    from encoders.images import to_pixels
    from encoders.importing.preprocessing import from_transformers

    settings = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, "do_normalize": False}
    for kind, levels in ((CLIPImageProcessor, 1.0), (CLIPImageProcessorPil, 0.0)):
        processor = kind(**settings)
        spec = from_transformers(processor, image_side=64)
        for sample in sample_images():
            theirs = processor(images=sample, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0) * 255
            assert np.abs(theirs - to_pixels(sample, spec)).max() <= levels + 1e-3, kind


def test_a_crop_margin_that_is_odd_is_cut_as_each_library_does(tmp_path: Path) -> None:
    clip = save_transformers_clip(tmp_path / "transformers", size={"shortest_edge": 67})
    ours = save_local_dir(tmp_path / "open_clip", open_clip_config(VIT, TEXT))
    floor = import_model(str(clip), out=tmp_path / "a", name="imported").config.preprocessing
    even = import_model(str(ours), out=tmp_path / "b", name="imported").config.preprocessing
    assert (floor.crop_rounding, floor.shortest_side) == ("floor", 67)
    assert (even.crop_rounding, even.shortest_side) == ("even", None)


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_transformers_clip(tmp_path_factory.mktemp("published") / "clip")


REJECTED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another model": ({"model_type": "siglip"}, {}, "'siglip'.*ViT-B-16-SigLIP/webli"),
    "a whole range": ({}, {"do_rescale": False}, "only values divided by 255"),
    "no crop": ({}, {"do_center_crop": False}, "only the shortest edge with a crop"),
    "another size": ({}, {"crop_size": {"height": 48, "width": 48}}, "48×48 pixels, the tower reads 64×64"),
    "hamming": ({}, {"resample": 5}, "resample 5 is none of"),
}


@pytest.mark.parametrize(("config", "processor", "message"), REJECTED.values(), ids=REJECTED.keys())
def test_what_a_bundle_cannot_express_is_refused_by_name(
    clip_folder: Path, tmp_path: Path, config: dict[str, Any], processor: dict[str, Any], message: str
) -> None:
    folder = Path(shutil.copytree(clip_folder, tmp_path / "changed"))
    edit_json(folder / "config.json", **config)
    edit_json(folder / "preprocessor_config.json", **processor)
    with pytest.raises(ImportFailed, match=message):
        import_model(str(folder), out=tmp_path / "bundle", name="imported")
    assert not (tmp_path / "bundle").exists()


def test_a_folder_without_all_its_parts_is_refused_by_name(clip_folder: Path, tmp_path: Path) -> None:
    for part in ("preprocessor_config.json", "model.safetensors"):
        folder = Path(shutil.copytree(clip_folder, tmp_path / part))
        (folder / part).unlink()
        with pytest.raises(ImportFailed, match="transformers cannot load"):
            import_model(str(folder), out=tmp_path / "bundle", name="imported")
    for missing, named in (("merges.txt", r"merges\.txt \("), ("vocab.json", r"vocab\.json \(")):
        folder = Path(shutil.copytree(clip_folder, tmp_path / missing))
        for part in ("tokenizer.json", missing):
            (folder / part).unlink()
        with pytest.raises(ImportFailed, match=f"has no vocabulary: {named}"):
            import_model(str(folder), out=tmp_path / "bundle", name="imported")
    with pytest.raises(ImportFailed, match="neither a config"):
        import_model(str(tmp_path), out=tmp_path / "bundle", name="imported")


def test_a_vocabulary_that_knows_no_word_proves_nothing(tmp_path: Path) -> None:
    folder = save_text_folder(tmp_path / "published")
    raw = json.loads((folder / "tokenizer.json").read_text())
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    raw["model"]["vocab"] = {word: at for word, at in raw["model"]["vocab"].items() if word in special}
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_pooler_type": "mean_pooler"}
    save_local_dir(folder, open_clip_config(VIT, {**text, "hf_proj_type": "mlp", "context_length": 32}))
    with pytest.raises(ImportFailed, match="no vocabulary beside its special tokens"):
        import_model(str(folder), out=tmp_path / "bundle", name="imported")
    raw["model"]["vocab"] = {**raw["model"]["vocab"], "nothing": 4}
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(
        ImportFailed, match=r"texts 'a photo of a dog' and 'a photo of a car' get the same vector"
    ):
        import_model(str(folder), out=tmp_path / "bundle", name="imported")
    assert not (tmp_path / "bundle").exists()


def test_images_that_all_embed_alike_prove_nothing(tmp_path: Path) -> None:
    folder = save_local_dir(tmp_path / "published", open_clip_config(VIT, TEXT))
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.conv1.weight"] *= 0
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.raises(ImportFailed, match=r"images '101×67 pixels' and .* get the same vector"):
        import_model(str(folder), out=tmp_path / "bundle", name="imported")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, registered: str) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "it ran",))

    torch.save({"state_dict": Runs()}, tmp_path / "evil.pt")
    save_sidecar(tmp_path, {"mean": [0.5] * 3, "std": [0.5] * 3})
    with pytest.raises(ImportFailed, match="open_clip cannot load"):
        import_model(str(tmp_path / "evil.pt"), out=tmp_path / "b", name="imported", architecture=registered)
    assert not (tmp_path / "it ran").exists()


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, registered: str) -> None:
    state = random_open_clip(open_clip_config(VIT, TEXT)).state_dict()
    state["visual.proj"][0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    save_sidecar(tmp_path, {"mean": [0.5] * 3, "std": [0.5] * 3})
    with pytest.raises(ImportFailed, match=r"1 tensors hold NaN or infinity, visual\.proj first"):
        import_model(str(tmp_path / "nan.pt"), out=tmp_path / "b", name="imported", architecture=registered)


def test_the_command_imports_shows_and_verifies(clip_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_folder, tmp_path / "some clip"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Some CLIP\n")
    out, run = tmp_path / "bundle", CliRunner()
    done = run.invoke(app, ["import", str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "least cosine with the original: images" in done.output
    bundle = Bundle.open(out)
    assert bundle.name == "some-clip"
    assert bundle.config.provenance["licence"] == "mit"
    assert min(bundle.config.provenance["agreement"].values()) >= SAME
    assert bundle.config.provenance["libraries"]["transformers"]
    shown = run.invoke(app, ["show", str(out)])
    assert shown.exit_code == 0
    assert bundle.fingerprint in shown.output
    verified = run.invoke(app, ["verify", str(out)])
    assert verified.exit_code == 0, verified.output
    assert "is sound" in verified.output
    (out / "model.safetensors").write_bytes(b"cut")
    broken = run.invoke(app, ["verify", str(out)])
    assert broken.exit_code == 1
    assert "model.safetensors has 3 bytes" in broken.output
    unknown = run.invoke(app, ["import", "ViT-B-32/absent", "--out", str(out)])
    assert unknown.exit_code == 2
    assert "open_clip has no tag 'absent' for ViT-B-32" in unknown.output

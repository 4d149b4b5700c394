"""What a phase trains, where a tower is cut, and what the optimiser does with it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.bundle import Bundle
from encoders.encoder import load_towers
from encoders.texts import open_tokenizer
from training.errors import RecipeError
from training.fit.recipe import Phase
from training.fit.towers.learner import Learner, trained_names
from training.fit.towers.optimiser import MovingAverage, Rates, cosine_with_warmup, optimiser, part_of
from training.fit.towers.products import lower_products
from training.fit.towers.stems import channels_first, channels_last, cut_image_tower
from training.fit.views.kept_texts import KeptTexts


@pytest.fixture
def model(tiny_bundle: Path) -> Any:
    return load_towers(Bundle.open(tiny_bundle))


def phase(**fields: object) -> Phase:
    return Phase.model_validate({"name": "p", "epochs": 1, **fields})


@pytest.mark.parametrize("cut", ["head", "blocks.1", "blocks.3"])
def test_stem_and_tail_together_are_the_tower(model: Any, cut: str) -> None:
    parts = cut_image_tower(model, cut)
    images = torch.randn(3, 3, 32, 32)
    kept = channels_first(channels_last(parts.stem(images)))
    torch.testing.assert_close(parts.tail(kept), model.visual(images))


@pytest.mark.parametrize(
    ("image", "text", "parts"),
    [
        ("head", "head", {"heads"}),
        ("blocks.3", "head", {"heads", "image"}),
        ("head", "layers.1", {"heads", "text"}),
        ("all", "all", {"heads", "image", "text"}),
    ],
)
def test_a_phase_trains_the_parts_that_it_names(model: Any, image: str, text: str, parts: set[str]) -> None:
    names = trained_names(model, phase(train_image=image, train_text=text))
    assert {part_of(name) for name in names} == parts
    assert "logit_scale" in names
    if image == "blocks.3":
        assert not any(name.startswith("visual.trunk.blocks.2") for name in names)
        assert any(name.startswith("visual.trunk.blocks.3") for name in names)
    if text == "layers.1":
        assert not any("embeddings" in name or "layer.0." in name for name in names)


@pytest.mark.parametrize("cut", ["blocks.0", "blocks.40", "stage.1", "tail"])
def test_a_place_that_is_not_there_is_refused_with_those_that_are(model: Any, cut: str) -> None:
    with pytest.raises(RecipeError, match=r"'blocks.1' to"):
        cut_image_tower(model, cut)


def test_norms_keep_their_statistics_while_the_towers_train(tiny_bundle: Path, model: Any) -> None:
    bundle = Bundle.open(tiny_bundle)
    tokenizer = open_tokenizer(bundle.config.tokenizer, bundle.path)
    learner = Learner(model, tokenizer, padded_to_context=False, precision="fp32", loss="softmax")
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    for freeze in (True, False):
        learner.begin(phase(freeze_norms=freeze))
        learner.train()
        learner.embed_images(torch.randn(4, 3, 32, 32))
        moved = [
            name for name, buffer in model.named_buffers() if name in before and not buffer.equal(before[name])
        ]
        assert bool(moved) is not freeze


def test_texts_of_any_length_come_back_in_their_order(tiny_bundle: Path, model: Any) -> None:
    bundle = Bundle.open(tiny_bundle)
    tokenizer = open_tokenizer(bundle.config.tokenizer, bundle.path)
    learner = Learner(model, tokenizer, padded_to_context=False, precision="fp32", loss="softmax")
    texts = ["red " * (1 + number % 9) + "dog" for number in range(150)]
    together = learner.embed_texts(texts)
    torch.testing.assert_close(together[77], learner.embed_texts([texts[77]])[0], rtol=1e-4, atol=1e-5)


def test_layers_near_the_input_move_less_and_norms_are_not_decayed(model: Any) -> None:
    names = trained_names(model, phase())
    adam = optimiser(
        model, names, Rates(heads=1.0, scale=2.0, image=0.1, text=0.01, weight_decay=0.2, layer_decay=0.5)
    )
    rate = {id(one): group["peak_lr"] for group in adam.param_groups for one in group["params"]}
    decay = {id(one): group["weight_decay"] for group in adam.param_groups for one in group["params"]}
    parameters = dict(model.named_parameters())

    def rate_of(name: str) -> float:
        return float(rate[id(parameters[name])])

    layers = "text.transformer.encoder.layer"
    assert rate_of("logit_scale") == 2.0
    assert rate_of("visual.head.mlp.fc1.weight") == 1.0
    assert rate_of(f"{layers}.1.output.dense.weight") == pytest.approx(0.01)
    assert rate_of(f"{layers}.0.output.dense.weight") == pytest.approx(0.005)
    assert rate_of("text.transformer.embeddings.word_embeddings.weight") == pytest.approx(0.005)
    assert decay[id(parameters["logit_scale"])] == 0
    assert decay[id(parameters[f"{layers}.0.output.LayerNorm.weight"])] == 0
    assert decay[id(parameters[f"{layers}.0.output.dense.weight"])] == 0.2


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    shares = [cosine_with_warmup(step, steps=100, warmup_steps=10) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[10] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[99] < 0.001


def test_the_average_follows_and_swaps_with_the_live_weights() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
    average = MovingAverage(layer, ["weight"], decay=0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for _ in range(200):
        average.update()
    average.swap()
    assert 0.99 < layer.weight.item() < 1.0
    average.swap()
    assert layer.weight.item() == 1.0


def test_a_frozen_text_tower_is_run_once_and_its_kept_features_give_the_same_rows(
    tmp_path: Path, tiny_bundle: Path, model: Any
) -> None:
    bundle = Bundle.open(tiny_bundle)
    learner = Learner(
        model, open_tokenizer(bundle.config.tokenizer, tiny_bundle), padded_to_context=False, precision="fp32",
        loss="softmax",
    )  # fmt: skip
    texts = ["a dog", "two red cars on a street", "a dog", ""]
    learner.begin(phase(train_image="head", train_text="head"))
    learner.model.eval()
    expected = learner.embed_texts(texts)

    kept = KeptTexts(learner.text_features, cache=tmp_path, identity="x")
    assert kept.missing(texts) == ["a dog", "two red cars on a street", ""]
    with pytest.raises(KeyError):
        kept.read(texts)
    kept.compute(texts, on_batch=lambda _: None)
    assert KeptTexts(learner.text_features, cache=tmp_path, identity="x").missing(texts) == []
    learner.kept_texts = kept
    model.text.transformer = None  # what is kept needs no tower
    rows = learner.embed_texts(texts)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-3)
    assert rows.requires_grad


def test_a_text_tower_that_learns_is_not_cut(model: Any, tiny_bundle: Path) -> None:
    tokenizer = open_tokenizer(Bundle.open(tiny_bundle).config.tokenizer, tiny_bundle)
    learner = Learner(model, tokenizer, padded_to_context=False, precision="fp32", loss="softmax")
    learner.begin(phase(train_image="head", train_text="layers.1"))
    assert learner.text_cut is None


def test_bf16_products_are_near_fp32_in_training_and_equal_to_it_in_use(model: Any) -> None:
    images = torch.randn(40, 3, 32, 32).to(memory_format=torch.channels_last)
    trunk = model.visual.trunk.eval()
    expected = trunk(images)
    names = list(model.state_dict())
    lower_products(trunk)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(trunk(images), expected, rtol=0, atol=0)
    for module in trunk.modules():
        module.training = not isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    lowered = trunk(images)
    assert not torch.equal(lowered, expected)
    assert torch.nn.functional.cosine_similarity(lowered, expected).min() > 0.999
    lowered.sum().backward()
    assert model.visual.trunk.conv_head.weight.grad is not None

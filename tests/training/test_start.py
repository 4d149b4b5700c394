from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.bundle import Bundle
from encoders.encoder import load_towers
from encoders.images import Preprocessing
from encoders.texts import open_tokenizer
from encoders.weights import save_weights
from training.errors import RecipeError
from training.fit.recipe import Phase
from training.fit.start import Start, TowerPair, resolve, starting_point
from training.fit.step.contrast import contrastive_step
from training.fit.step.loss import PairIds
from training.fit.towers.learner import Learner


def pair(bundle: Path, folder: Path, weights: dict[str, torch.Tensor], *, suffix: str) -> Start:
    """Weights of the tiny bundle's towers as published files: an image file and a text folder."""
    towers: Any = load_towers(Bundle.open(bundle))
    image = folder / f"image{suffix}"
    if suffix == ".pth":
        torch.save(weights, image)
    else:
        save_weights(weights, image, encoding="fp32")
    text = folder / "text-model"
    text.mkdir()
    save_weights(towers.text.transformer.state_dict(), text / "model.safetensors", encoding="fp32")
    (text / "config.json").write_bytes((bundle / "text/config.json").read_bytes())
    (text / "tokenizer.json").write_bytes((bundle / "tokenizer/tokenizer.json").read_bytes())
    return Start(
        towers=TowerPair(
            image_model="test_efficientnet", image_weights=str(image), text_model=str(text), embed_dim=16
        ),
        preprocessing=Preprocessing(height=32, width=32),
    )


def trunk_state(bundle: Path) -> dict[str, torch.Tensor]:
    towers: Any = load_towers(Bundle.open(bundle))
    return dict(towers.visual.trunk.state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_two_pretrained_towers_start_with_their_weights(tiny_bundle: Path, tmp_path: Path, suffix: str) -> None:
    point = starting_point(
        pair(tiny_bundle, tmp_path, trunk_state(tiny_bundle), suffix=suffix), tmp_path / "scratch", seed=0
    )
    model: Any = point.model
    towers: Any = load_towers(Bundle.open(tiny_bundle))
    for name, tensor in towers.visual.trunk.state_dict().items():
        torch.testing.assert_close(model.visual.trunk.state_dict()[name], tensor)
    torch.testing.assert_close(
        model.text.transformer.embeddings.word_embeddings.weight,
        towers.text.transformer.embeddings.word_embeddings.weight,
    )


def test_weights_under_other_names_fit_by_their_order_and_a_classifier_is_left_over(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    renamed = {f"other.{place}": tensor for place, tensor in enumerate(trunk_state(tiny_bundle).values())}
    renamed["classifier"] = torch.zeros(10, 10)
    point = starting_point(pair(tiny_bundle, tmp_path, renamed, suffix=".pth"), tmp_path / "scratch", seed=0)
    model: Any = point.model
    assert all(
        given.equal(own)
        for given, own in zip(
            trunk_state(tiny_bundle).values(), model.visual.trunk.state_dict().values(), strict=True
        )
    )


def test_weights_of_another_tower_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    wrong = {name: tensor.reshape(-1) for name, tensor in trunk_state(tiny_bundle).items()}
    with pytest.raises(RecipeError, match="neither by name nor in order"):
        starting_point(pair(tiny_bundle, tmp_path, wrong, suffix=".pth"), tmp_path / "scratch", seed=0)


@pytest.mark.parametrize("name", ["no_such_weights", "no_such_weights.inner"])
def test_a_package_that_is_not_installed_is_named(name: str) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' is not installed"):
        resolve(f"package:{name}/model.pth")


def test_the_start_is_exactly_one_of_three(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        Start(bundle=tiny_bundle, open_clip="ViT-B-32")
    with pytest.raises(ValueError, match="exactly one of"):
        Start()


def test_an_architecture_starts_from_random_weights_and_its_own_tokenizer(tmp_path: Path) -> None:
    point = starting_point(Start(open_clip="RN50"), tmp_path, seed=0)
    assert point.tokenizer.kind == "clip_bpe"
    assert point.preprocessing.resize == "shortest"
    with pytest.raises(RecipeError, match="no architecture 'RN51'"):
        starting_point(Start(open_clip="RN51"), tmp_path, seed=0)


def test_towers_for_the_sigmoid_loss_begin_with_a_bias_and_learn_by_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    start = pair(tiny_bundle, tmp_path, trunk_state(tiny_bundle), suffix=".pth")
    point = starting_point(start, tmp_path / "scratch", seed=0, loss="sigmoid")
    model: Any = point.model
    assert model.logit_bias.item() == -10
    assert model.logit_scale.exp().item() == pytest.approx(10)
    learner = Learner(
        model, open_tokenizer(point.tokenizer, tmp_path / "scratch"), padded_to_context=False, precision="fp32",
        loss="sigmoid",
    )  # fmt: skip
    assert "logit_bias" in learner.begin(Phase(name="p", epochs=1))
    ids = PairIds(torch.arange(4), torch.arange(4))

    def towers(_: slice) -> tuple[torch.Tensor, torch.Tensor]:
        words = ["a red dog", "a blue car", "a cat", "the white circle"]
        return learner.embed_images(torch.linspace(-1, 1, 4 * 3 * 32 * 32).view(4, 3, 32, 32)), (
            learner.embed_texts(words)
        )

    loss = contrastive_step(towers, ids, loss_of=learner.loss, micro_batch=4, seed=0)
    assert 0 < loss < 20
    assert model.logit_bias.grad.item() != 0
    plain = starting_point(start, tmp_path / "scratch", seed=0)
    assert plain.towers.init_logit_bias is None

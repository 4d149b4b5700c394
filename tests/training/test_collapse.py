import numpy as np
import pytest

from encoders.query_bank import QueryBank
from training.evaluation.collapse import effective_rank, health_warnings, measure_health


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def aligned(
    rng: np.random.Generator, *, images: int = 200, dim: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vectors = rng.standard_normal((images, dim))
    owner = np.repeat(np.arange(images), 5)
    return unit(vectors), unit(vectors[owner] + rng.standard_normal((5 * images, dim))), owner


@pytest.mark.parametrize("directions", [1, 3, 16])
def test_effective_rank_counts_equally_used_directions(directions: int) -> None:
    vectors = np.eye(16, dtype=np.float32)[np.arange(160 * directions) % directions]
    assert effective_rank(vectors) == pytest.approx(directions)


def test_effective_rank_is_the_entropy_of_the_singular_values() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    singular = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    shares = singular / singular.sum()
    assert effective_rank(vectors) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


def test_healthy_embeddings_raise_no_warning() -> None:
    images, captions, owner = aligned(np.random.default_rng(1))
    health = measure_health(images, captions, caption_image=owner)
    assert health_warnings(health) == ()
    assert health.matched_cosine == pytest.approx(0.7, abs=0.05)
    assert health.unmatched_cosine == pytest.approx(0, abs=0.01)
    assert health.modality_gap < 0.2


def test_collapsed_embeddings_are_named_with_their_effective_rank() -> None:
    rng = np.random.default_rng(2)
    _, captions, owner = aligned(rng)
    images = unit(np.ones((200, 64)) + 1e-6 * rng.standard_normal((200, 64)))
    [collapsed, unaligned] = health_warnings(measure_health(images, captions, caption_image=owner))
    assert collapsed.startswith("image embeddings collapsed: effective rank 1.0 of 64.")
    assert "captions score their own image no higher" in unaligned


def test_a_narrow_cone_of_full_rank_is_named_by_its_spread() -> None:
    rng = np.random.default_rng(3)
    images, captions, owner = aligned(rng)
    cone = np.zeros(64)
    cone[0] = 6
    health = measure_health(unit(images + cone), unit(captions + cone), caption_image=owner)
    assert [warning.partition(":")[0] for warning in health_warnings(health)][:2] == [
        "image embeddings all point one way",
        "caption embeddings all point one way",
    ]


def warned(images: np.ndarray, captions: np.ndarray, owner: np.ndarray, bank: QueryBank | None = None) -> str:
    health = measure_health(images, captions, caption_image=owner, bank=bank)
    [warning] = [text for text in health_warnings(health) if "score their own image no higher" in text]
    return warning


def bank_of(images: np.ndarray, captions: np.ndarray) -> QueryBank:
    return QueryBank({"images": images, "texts": captions}, fingerprint="ab" * 32)


def test_captions_paired_with_the_wrong_images_are_told_as_that() -> None:
    images, captions, owner = aligned(np.random.default_rng(4))
    for wrong in ((owner + 1) % 200, np.random.default_rng(5).permutation(owner)):
        warning = warned(images, captions, wrong, bank_of(images, captions[::5]))
        assert "captions and images are paired wrongly. Look for a shifted or shuffled column" in warning


def foreign(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of images that are alike, with captions that are alike, in towers that do not agree on them."""
    groups, owner = np.arange(200) // 10, np.repeat(np.arange(200), 5)
    seen, said = rng.standard_normal((20, 64)), rng.standard_normal((20, 64))
    images = unit(seen[groups] + 0.5 * rng.standard_normal((200, 64)))
    return images, unit(said[groups[owner]] + 0.5 * rng.standard_normal((1000, 64))), owner


def test_a_foreign_domain_is_told_from_towers_that_never_met() -> None:
    images, captions, owner = foreign(np.random.default_rng(6))
    known_images, known_captions, _ = aligned(np.random.default_rng(7))
    bank = bank_of(known_images, known_captions[::5])
    assert "this domain is foreign to them. Adapt the bundle" in warned(images, captions, owner, bank)
    unknown = warned(images, captions, owner)
    assert "the towers are not trained together, or this domain is foreign" in unknown
    assert "paired wrongly" not in unknown


def test_where_nothing_tells_all_three_causes_are_named() -> None:
    rng = np.random.default_rng(8)
    images, captions = unit(rng.standard_normal((200, 64))), unit(rng.standard_normal((1000, 64)))
    warning = warned(images, captions, np.repeat(np.arange(200), 5))
    for cause in ("not trained together", "paired wrongly", "foreign to the towers"):
        assert cause in warning


def test_towers_on_opposite_sides_are_noticed() -> None:
    images, captions, owner = aligned(np.random.default_rng(5))
    side = np.zeros(64)
    side[0] = 1.5
    health = measure_health(unit(images + side), unit(captions - side), caption_image=owner)
    assert any("modality gap 1." in warning for warning in health_warnings(health))


def test_ties_and_cut_captions_are_noticed_beyond_their_limits() -> None:
    images, captions, owner = aligned(np.random.default_rng(6))
    health = measure_health(images, captions, caption_image=owner, tied_share=0.25, cut_share=0.5)
    tied, cut = health_warnings(health)
    assert tied.startswith("25.0% of the queries tie")
    assert cut.startswith("50.0% of the captions are longer")


def test_a_vector_that_is_not_finite_is_refused_by_its_row() -> None:
    images, captions, owner = aligned(np.random.default_rng(7))
    images[17, 3] = np.nan
    with pytest.raises(ValueError, match="embedding 17 of 200 is not finite"):
        measure_health(images, captions, caption_image=owner)

import pytest

from training.augmentation.augment import HELD_OUT_CORRUPTIONS, NO_AUGMENTATION, Augmentation
from training.augmentation.presets import KINDS, PRESETS, check_held_out, trained_kinds
from training.fit.recipe import Recipe, Source


def chosen(given: object) -> Augmentation:
    return Source.model_validate({"pairs": "csv:x.csv", "augmentation": given}).augmentation


def recipe(augmentation: object, **fields: object) -> Recipe:
    return Recipe.model_validate({
        "name": "r", "start": {"open_clip": "RN50"}, "phases": [{"name": "p", "epochs": 1}],
        "sources": [{"pairs": "csv:x.csv", "augmentation": augmentation}], **fields,
    })  # fmt: skip


def test_an_augmentation_is_a_presets_name_or_a_table_that_changes_one() -> None:
    assert chosen("none") == NO_AUGMENTATION
    assert chosen("standard") == chosen({}) == Augmentation()
    assert chosen({"preset": "drawings", "grey": 0.4}) == PRESETS["drawings"].model_copy(update={"grey": 0.4})
    assert chosen({"jitter": 0.1}) == Augmentation(jitter=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wild", "no augmentation 'wild': the presets are none, standard, drawings, strong"),
        ({"preset": "wild"}, "no augmentation 'wild'"),
        ({"preset": ["strong"]}, "no augmentation"),
        ({"preset": "strong", "brightness": 1}, "brightness"),
        ({"preset": "strong", "jpeg": 2}, "jpeg"),
    ],
)
def test_a_wrong_choice_is_an_error_that_says_what_there_is(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(given)


def test_no_preset_trains_on_what_recipes_hold_out_unless_they_say_otherwise() -> None:
    assert set(HELD_OUT_CORRUPTIONS) <= set(KINDS)
    check_held_out(HELD_OUT_CORRUPTIONS, PRESETS.items())
    assert trained_kinds(NO_AUGMENTATION) == frozenset()
    assert {"under_exposure", "resolution_bicubic", "jpeg"} <= trained_kinds(PRESETS["strong"])


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("noise", 0.1, "noise"),
        ("noise", 0.1, "low_light"),
        ("blur", 0.1, "blur"),
        ("white_balance", 0.1, "warm"),
        ("jitter_strength", 0.6, "oversaturate"),
        ("jpeg", 0.1, "jpeg"),
    ],
)
def test_a_recipe_that_trains_on_a_kind_it_holds_out_is_an_error(field: str, value: float, kind: str) -> None:
    with pytest.raises(ValueError, match=f"csv:x.csv trains on {kind} "):
        recipe({field: value}, held_out_corruptions=[kind])
    others = [
        name for name in HELD_OUT_CORRUPTIONS if name not in trained_kinds(Augmentation(**{field: value}))
    ]
    assert recipe({field: value}, held_out_corruptions=others).held_out_corruptions == others


def test_of_two_sources_of_one_set_each_is_held_to_the_list() -> None:
    sources = [{"pairs": "csv:x.csv", "augmentation": {"noise": noise}} for noise in (0.1, 0.0)]
    with pytest.raises(ValueError, match=r"csv:x.csv trains on noise "):
        recipe({}, sources=sources, held_out_corruptions=["noise"])


def test_a_kind_that_is_none_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"names fog: the kinds are blur, brightness"):
        recipe({}, held_out_corruptions=["fog"])

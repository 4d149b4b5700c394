import json

from training.fit.recipe import Recipe


def recipe(**fields: object) -> Recipe:
    return Recipe.model_validate({
        "name": "r", "start": {"open_clip": "RN50"}, "sources": [{"pairs": "csv:x.csv"}],
        "validation": {"pairs": ["csv:v.csv"]},
        "phases": [{"name": "a", "epochs": 1}, {"name": "b", "epochs": 1}], **fields,
    })  # fmt: skip


def test_a_run_that_began_before_a_part_was_there_goes_on_while_it_is_unused() -> None:
    """A checkpoint agrees with its recipe by this text."""
    old = json.loads(recipe().decisive_json())
    assert not {"distillation", "held_out_corruptions", "unseen", "weights"} & old.keys()
    assert "watch" not in old["validation"]
    assert all("hard_negatives" not in phase for phase in old["phases"])
    assert [phase["name"] for phase in old["phases"]] == ["a", "b"]


def test_what_decides_the_next_step_makes_it_another_run() -> None:
    phases = [{"name": "a", "epochs": 1}, {"name": "b", "epochs": 1, "hard_negatives": 0.5}]
    texts = {
        recipe(**fields).decisive_json()
        for fields in (
            {}, {"phases": phases}, {"distillation": {"teacher": "b"}}, {"seed": 1},
            {"validation": {"pairs": ["csv:v.csv"], "watch": ["csv:w.csv"]}},
        )
    }  # fmt: skip
    assert len(texts) == 5
    assert recipe(held_out_corruptions=["noise"]).decisive_json() == recipe().decisive_json()

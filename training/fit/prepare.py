"""Before the first step: the data, what is likely wrong with it, the towers; after the last: the bundle.

It does not train.
"""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from encoders.bundle import MANIFEST, Bundle, BundleConfig, write_bundle
from encoders.golden import add_golden
from encoders.texts import open_tokenizer
from training.card import CARD, bundle_card
from training.data.leakage import Leak, find_leaks
from training.data.pairs import MissingImage, PairSet, read_pairs
from training.errors import RecipeError
from training.fit.processes import Processes
from training.fit.progress import Reporter
from training.fit.recipe import Recipe, Source, warnings_of
from training.fit.start import StartingPoint, starting_point
from training.fit.step.mixture import Mixture, build_mixture
from training.fit.validate import HeldOut, held_out

NAMED = 5
"""Images and leaks named in a message; the rest is counted."""
CAPTIONS_LOOKED_AT = 5000
CUT_SHARE = 0.1
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "pillow", "numpy")


@dataclass(frozen=True)
class Prepared:
    """All that a run works on. scratch: where tokenizer files lie; cache: where activations are kept."""

    recipe: Recipe
    point: StartingPoint
    scratch: Path
    cache: Path
    device: torch.device
    sets: tuple[PairSet, ...]
    mixture: Mixture
    held_out: tuple[HeldOut, ...]
    processes: Processes
    watched: tuple[HeldOut, ...] = ()
    teacher: Bundle | None = None


def prepare(
    recipe: Recipe,
    *,
    folder: Path,
    cache: Path,
    device: torch.device,
    processes: Processes,
    reporter: Reporter,
) -> Prepared:
    """Read, check and build. Warnings go to the reporter.

    Raises PairsError, RecipeError (an unseen image is among the training images), BundleError.
    """
    reporter.warn(warnings_of(recipe))
    sets = tuple(read_pairs(source.pairs) for source in recipe.sources)
    held_sets = [read_pairs(spec) for spec in (recipe.validation.pairs if recipe.validation else [])]
    watched_sets = [read_pairs(spec) for spec in (recipe.validation.watch if recipe.validation else [])]
    _refuse_one_name([*held_sets, *watched_sets])
    if processes.first:
        _refuse_leaks(recipe, sets, reporter)
        _warn_of_leaks(sets, [*held_sets, *watched_sets], reporter)
    mixture = _decoded(sets, recipe.sources, recipe, reporter)
    held, watched = (
        tuple(held_out(one.name, _decoded([one], [_plain(one)], recipe, reporter)) for one in some)
        for some in (held_sets, watched_sets)
    )
    scratch = folder / f"towers-{processes.rank}"
    point = starting_point(recipe.start, scratch, seed=recipe.seed, loss=recipe.loss)
    _warn_of_cut_captions(sets, point, scratch, reporter)
    teacher = None if recipe.distillation is None else Bundle.open(recipe.distillation.teacher)
    return Prepared(recipe, point, scratch, cache, device, sets, mixture, held, processes, watched, teacher)


def check_out(out: Path) -> None:
    """Raises RecipeError now, not after hours, where no bundle can be written."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise RecipeError(f"{out} exists and is no bundle: name another --out")
    out.parent.mkdir(parents=True, exist_ok=True)


def finish_bundle(
    prepared: Prepared, model: nn.Module, out: Path, *, measured: Mapping[str, Any] | None = None
) -> Bundle:
    """Write the trained towers as a bundle with where they come from and what golden inputs become."""
    recipe, point, teacher = prepared.recipe, prepared.point, prepared.teacher
    config = BundleConfig(
        name=recipe.name,
        towers=point.towers,
        preprocessing=point.preprocessing,
        tokenizer=point.tokenizer,
        weights=recipe.weights or point.weights,
        logit_scale=math.exp(cast("Any", model).logit_scale.item()),
        provenance={
            "recipe": recipe.model_dump(mode="json"),
            "parent": point.parent,
            "data": [
                *point.parent_data,
                *([] if teacher is None else _through(teacher)),
                *(
                    _data_record(source, pair_set, usable=len(examples))
                    for source, pair_set, examples in zip(
                        recipe.sources, prepared.sets, prepared.mixture.examples, strict=True
                    )
                ),
            ],
            "libraries": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
            "device": prepared.device.type,
            **(
                {}
                if teacher is None
                else {"teacher": {"name": teacher.name, "fingerprint": teacher.fingerprint}}
            ),
            **(measured or {}),
        },
    )
    files = {**point.files, CARD: bundle_card(config).encode()}
    state = model.state_dict()
    return add_golden(write_bundle(out, config=config, state=state, files=files), reference=state)


def _through(teacher: Bundle) -> list[dict[str, Any]]:
    """What a teacher was trained on: its terms go on to what learned from it."""
    return [
        {**record, "name": f"{record['name']}, through the teacher {teacher.name}"}
        for record in teacher.config.provenance.get("data", [])
    ]


def _data_record(source: Source, pair_set: PairSet, *, usable: int) -> dict[str, object]:
    return {
        "name": pair_set.name,
        "pairs": pair_set.spec,
        "sha256": pair_set.digest,
        "images": usable,
        "captions": pair_set.caption_count,
        "licence": source.licence,
    }


def _decoded(sets: Sequence[PairSet], sources: Sequence[Source], recipe: Recipe, reporter: Reporter) -> Mixture:
    total = sum(len(one.images) for one in sets)
    title = "decoding " + ", ".join(one.name for one in sets)
    with reporter.bar(title, total) as bar:
        mixture = build_mixture(sources, sets, threads=recipe.decode_threads, on_image=bar.advance)
    lost = [*(missing for one in sets for missing in one.missing), *mixture.broken]
    captions = sum(one.caption_count for one in sets)
    reporter.say(f"{title}: {total - len(mixture.broken)} images, {captions} captions")
    if lost:
        reporter.warn([f"{len(lost)} images are left out: {_named(lost)}"])
    return mixture


def _plain(pair_set: PairSet) -> Source:
    return Source(pairs=pair_set.spec, word_dropout=0)


def _named(lost: Sequence[MissingImage]) -> str:
    names = "; ".join(f"{one.image_id} ({one.reason})" for one in lost[:NAMED])
    return names + (f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else "")


def _refuse_one_name(held: Sequence[PairSet]) -> None:
    """Figures go by the sets' names."""
    names = [one.name for one in held]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"[validation]: two sets are called {twice!r}: name one, by ?name=… in its spec")


def _refuse_leaks(recipe: Recipe, sets: Sequence[PairSet], reporter: Reporter) -> None:
    for spec in recipe.unseen:
        unseen = read_pairs(spec)
        leaks = [leak for one in sets for leak in find_leaks(one, unseen)]
        if leaks:
            raise RecipeError(
                f"{len(leaks)} training images are (nearly) images of the unseen set {unseen.name}: "
                f"{_leaks_named(leaks)}; list their ids in a file and add exclude=<file> to the source's spec"
            )
        reporter.say(f"unseen {unseen.name}: none of its {len(unseen.images)} images is in training")


def _warn_of_leaks(sets: Sequence[PairSet], held: Sequence[PairSet], reporter: Reporter) -> None:
    for one in held:
        leaks = [leak for train in sets for leak in find_leaks(train, one)]
        if leaks:
            reporter.warn([f"{len(leaks)} training images are (nearly) in {one.name}: {_leaks_named(leaks)}"])


def _leaks_named(leaks: Sequence[Leak]) -> str:
    named = "; ".join(f"{leak.train_id} is {leak.test_id}" for leak in leaks[:NAMED])
    return named + ("; …" if len(leaks) > NAMED else "")


def _warn_of_cut_captions(
    sets: Sequence[PairSet], point: StartingPoint, scratch: Path, reporter: Reporter
) -> None:
    tokenizer = open_tokenizer(point.tokenizer, scratch)
    for one in sets:
        captions = [pair.caption for _, pair in zip(range(CAPTIONS_LOOKED_AT), one.pairs(), strict=False)]
        share = float(tokenizer(captions).truncated.mean())
        if share > CUT_SHARE:
            reporter.warn([
                f"{share:.0%} of the captions of {one.name} exceed {point.tokenizer.context_length} tokens and "
                "are cut: shorten them, or start from towers with a longer context"
            ])  # fmt: skip

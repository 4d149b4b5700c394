"""The inputs of a phase's trained parts: views of each source and its captions, kept or made afresh."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import nn

from encoders.choices import Precision
from encoders.texts import TOKENIZER_FILES
from training.augmentation.augment import NO_AUGMENTATION
from training.fit.prepare import Prepared
from training.fit.progress import Reporter
from training.fit.recipe import Phase
from training.fit.step.mixture import Draw
from training.fit.towers.learner import Feed, Learner
from training.fit.towers.stems import CutTower
from training.fit.views.kept_texts import KeptTexts
from training.fit.views.views import LiveViews, StemViews, TrainingImage, ViewSettings, Wanted


@dataclass(frozen=True)
class Feeds:
    """by_source: one feed for each source of the recipe; plain: for validation, view 0 only.

    texts: the kept features of all captions, where the text tower is frozen and `views` are kept.
    """

    by_source: Sequence[Feed]
    plain: Feed
    texts: KeptTexts | None = None

    @classmethod
    def open(cls, prepared: Prepared, learner: Learner, phase: Phase, *, reporter: Reporter) -> "Feeds":
        """Where views are kept, those not kept yet are computed first (by the first process)."""
        recipe, preprocessing = prepared.recipe, prepared.point.preprocessing
        settings = [
            ViewSettings(preprocessing, augmentation, recipe.seed)
            for augmentation in [*(source.augmentation for source in recipe.sources), NO_AUGMENTATION]
        ]
        if learner.cut is not None and phase.views:
            feeds: Sequence[Feed] = _kept(prepared, learner.cut, settings, views=phase.views, reporter=reporter)
        else:
            live = [LiveViews(one, device=prepared.device, threads=recipe.decode_threads) for one in settings]
            cut = learner.cut
            feeds = live if cut is None else [_BehindStem(one, cut.stem, recipe.stem_precision) for one in live]
        texts = _kept_texts(prepared, learner, views=phase.views, reporter=reporter)
        return cls(feeds[:-1], feeds[-1], texts)

    def turn(self, following: Sequence[Draw] = ()) -> None:
        """Go on to the next batch; `following` is the one after it, to be prepared meanwhile."""
        for place, feed in enumerate(self.by_source):
            feed.turn(_views(following, _rows_of(following, place)))

    def read(self, draws: Sequence[Draw]) -> torch.Tensor:
        """(n, …) inputs of the trained part, in the order of the draws."""
        inputs: list[torch.Tensor] = []
        order: list[int] = []
        for place, feed in enumerate(self.by_source):
            if rows := _rows_of(draws, place):
                inputs.append(feed.read(_views(draws, rows)))
                order += rows
        return torch.cat(inputs)[torch.argsort(torch.tensor(order))]


def whole_towers_feed(prepared: Prepared) -> LiveViews:
    """Plain images for towers that run whole."""
    settings = ViewSettings(prepared.point.preprocessing, NO_AUGMENTATION, prepared.recipe.seed)
    return LiveViews(settings, device=prepared.device, threads=prepared.recipe.decode_threads)


def _rows_of(draws: Sequence[Draw], place: int) -> list[int]:
    return [row for row, draw in enumerate(draws) if draw.example.source == place]


def _views(draws: Sequence[Draw], rows: Sequence[int]) -> Wanted:
    return [(draws[row].example.image, draws[row].view) for row in rows]


class _BehindStem:
    """A frozen stem run afresh on every view."""

    def __init__(self, live: LiveViews, stem: nn.Module, precision: Precision) -> None:
        self._live = live
        self._stem = stem
        self._precision = precision

    def turn(self, following: Wanted = ()) -> None:
        self._live.turn(following)

    def read(self, wanted: Wanted) -> torch.Tensor:
        images = self._live.read(wanted)
        low = self._precision == "bf16"
        with torch.no_grad(), torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=low):
            activations: torch.Tensor = self._stem(images).float()
        return activations


def _kept(
    prepared: Prepared, cut: CutTower, settings: Sequence[ViewSettings], *, views: int, reporter: Reporter
) -> list[StemViews]:
    def stores() -> list[StemViews]:
        # One store for sources of equal settings: two objects on one folder would not see each other's records.
        precision = prepared.recipe.stem_precision
        opened = {
            one: StemViews(cut.stem, one, cache=prepared.cache, precision=precision) for one in set(settings)
        }
        return [opened[one] for one in settings]

    opened = stores()
    if prepared.processes.first:
        threads = prepared.recipe.decode_threads
        _compute(opened, _wanted(prepared, views), threads=threads, reporter=reporter)
    prepared.processes.wait()
    return opened if prepared.processes.first else stores()


def _kept_texts(prepared: Prepared, learner: Learner, *, views: int, reporter: Reporter) -> KeptTexts | None:
    cut = learner.text_cut
    if cut is None or not views:
        return None
    identity = _text_identity(prepared, cut)

    def opened() -> KeptTexts:
        return KeptTexts(learner.text_features, cache=prepared.cache, identity=identity)

    kept = opened()
    if prepared.processes.first and (missing := kept.missing(_captions(prepared, views))):
        reporter.say(f"{len(missing)} captions go through the frozen text tower once, and are kept")
        with reporter.bar("captions", len(missing), unit="captions") as bar:
            kept.compute(missing, on_batch=bar.advance)
    prepared.processes.wait()
    return kept if prepared.processes.first else opened()


def _captions(prepared: Prepared, views: int) -> Iterator[str]:
    """Every caption as every view shows it, and the held-out ones as they are."""
    mixture = prepared.mixture
    for examples in mixture.examples:
        for example in examples:
            for caption in example.captions:
                yield from (mixture.shown(example, caption, view) for view in range(views))
    for one in prepared.held_out:
        yield from one.captions


def _text_identity(prepared: Prepared, cut: CutTower) -> str:
    """Digest of all that a text's features depend on besides the text."""
    tokenizer = prepared.point.tokenizer
    state = {name: tensor.contiguous() for name, tensor in cut.stem.state_dict().items()}
    digest = hashlib.sha256(save(state))
    digest.update(tokenizer.model_dump_json().encode())
    digest.update(prepared.point.files[TOKENIZER_FILES[tokenizer.kind]])
    if prepared.device.type != "cpu":
        digest.update(f"{prepared.device.type} {prepared.recipe.precision}".encode())
    return digest.hexdigest()[:32]


def _wanted(prepared: Prepared, views: int) -> list[list[tuple[TrainingImage, int]]]:
    wanted = [
        [(example.image, view) for view in range(views) for example in examples]
        for examples in prepared.mixture.examples
    ]
    return [*wanted, [(image, 0) for one in prepared.held_out for image in one.images]]


def _compute(
    stores: Sequence[StemViews], wanted: Sequence[Wanted], *, threads: int, reporter: Reporter
) -> None:
    total = sum(len(store.missing(views)) for store, views in zip(stores, wanted, strict=True))
    if not total:
        return
    reporter.say(f"{total} views go through the frozen stem once, and are kept")
    with reporter.bar("views", total, unit="views") as bar:
        for store, views in zip(stores, wanted, strict=True):
            store.compute(views, threads=threads, on_batch=bar.advance)

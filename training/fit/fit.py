"""The training loop: phases of epochs of steps, validated, averaged, and resumable at any moment.

    recipe ─► starting point ─► phase by phase: draw, embed, contrast, step, average ─► best average ─► Bundle

Every draw depends on (seed, phase, epoch, step) alone and every tensor that moves is in the checkpoint, so a
run that was killed ends with the same weights to the bit (CPU, fp32, the same threads). How a batch becomes
embeddings is the learner's, what a bundle is `encoders`'.
"""

import hashlib
import math
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from encoders.bundle import Bundle
from encoders.texts import open_tokenizer
from training.errors import CheckpointError, RecipeError, StartIsBetter
from training.evaluation.collapse import health_warnings
from training.fit.beginning import Beginning
from training.fit.checkpoint import Progress, load_optimiser, load_tensors, optimiser_tensors, save_tensors
from training.fit.forgetting import forgotten, records_of
from training.fit.prepare import Prepared, finish_bundle
from training.fit.progress import Bar, Reporter
from training.fit.recipe import Phase
from training.fit.step.hard_negatives import gathered
from training.fit.step.mixture import Draw
from training.fit.step.step import Mimicry, Stepper, open_mimicry
from training.fit.towers.learner import Learner
from training.fit.towers.optimiser import MovingAverage, cosine_with_warmup, optimiser, set_rate
from training.fit.validate import mean_score, validate
from training.fit.views.feeds import Feeds

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
SILENT = Reporter(Console(quiet=True), None)


def run_digest(prepared: Prepared) -> str:
    """What a checkpoint must agree with to be resumed: all that decides the next step and the best one."""
    images = [example.image for examples in prepared.mixture.examples for example in examples]
    parts = [
        prepared.recipe.decisive_json(),
        str(prepared.point.parent),
        str(prepared.processes.count),
        *(one.digest for one in prepared.sets),
        *(image.digest.hex() for image in images),
        *(one.digest for one in (*prepared.held_out, *prepared.watched)),
        *([] if prepared.teacher is None else [prepared.teacher.fingerprint]),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Run:
    """One training run in `folder`, from where it stands to its end."""

    def __init__(self, prepared: Prepared, folder: Path, *, checkpoint_seconds: float) -> None:
        self._recipe = prepared.recipe
        self._prepared = prepared
        self._folder = folder
        self._checkpoint_seconds = checkpoint_seconds
        self._processes = prepared.processes
        self._reporter = SILENT
        self._loss = math.nan
        self._recall = ""
        point = prepared.point
        tokenizer = open_tokenizer(point.tokenizer, prepared.scratch)
        self._learner = Learner(
            point.model.to(prepared.device).to(memory_format=torch.channels_last),
            tokenizer,
            padded_to_context=point.tokenizer.pad_to == "context",
            precision=self._recipe.precision,
            loss=self._recipe.loss,
        )
        self._progress = Progress(digest=run_digest(prepared))
        self._beginning = Beginning(prepared, self._learner, folder, digest=self._progress.digest)
        self._mimicry: Mimicry | None = None
        self._resumed: dict[str, torch.Tensor] = {}

    @property
    def steps_done(self) -> int:
        return self._progress.total_steps

    @property
    def validated(self) -> bool:
        """Whether the validation after the last step done, if one was due, is behind the checkpoint."""
        return self._progress.step == 0

    def resume(self) -> None:
        """Take up the checkpoint in the folder, if any. Raises CheckpointError for another run's."""
        path = self._folder / CHECKPOINT
        if not path.exists():
            return
        tensors, progress = load_tensors(path)
        if progress.digest != self._progress.digest:
            raise CheckpointError(
                f"{self._folder} holds a run of another recipe, data or start (digest {progress.digest[:12]}, "
                f"this one is {self._progress.digest[:12]}): name another --folder, or delete that one"
            )
        self._progress, self._resumed = progress, tensors
        _load_model(self._learner.model, tensors, "model.")

    def train(self, out: Path, *, reporter: Reporter, until: str | None = None) -> Bundle:
        """Train to the end, or to that of the phase `until`, and write the bundle; more can follow later.

        What the run began with is a candidate, too: StartIsBetter where no average scores higher on the
        validation sets, and nothing is written. Raises Diverged, UnreadableImage, CheckpointError, RecipeError
        (no such phase, or it is over).
        """
        self._reporter = reporter
        wanted = self._phases_wanted(until)
        if self._progress.total_steps == 0:
            self._begin(reporter)
        self._processes.wait()
        self._mimicry = open_mimicry(self._prepared, reporter)
        phases = self._recipe.phases
        while self._phases_done < wanted:
            self._phase(phases[self._progress.phase])
            self._load_best()
            following = self._progress.phase + 1
            self._update(
                phase=min(following, len(phases) - 1), epoch=0, step=0, average_updates=0,
                validations_without_gain=0, finished=following == len(phases),
            )  # fmt: skip
            self._save(None, None)
        if self._recipe.validation is not None and self._load_best().total_steps == 0:
            raise StartIsBetter(self._why_the_start())
        if self._processes.first:
            finish_bundle(self._prepared, self._learner.model, out, measured=self._changes())
        self._processes.wait()
        return Bundle.open(out)

    def _begin(self, reporter: Reporter) -> None:
        """Before the first step: see how the start does, and keep it as the best so far."""
        if self._processes.first:
            self._beginning.look(reporter)
        self._processes.wait()
        if self._recipe.validation is None:
            return
        score = self._processes.agreed(self._beginning.score() or 0.0)
        reporter.say(f"the start: score {100 * score:.2f}")
        self._keep_best(score)

    def _why_the_start(self) -> str:
        best, trained = self._progress.best_score or 0.0, self._progress.best_trained_score or 0.0
        return (
            f"on its own validation sets the run scored {100 * trained:.2f} at best and what it began from "
            f"{100 * best:.2f}: no bundle is written. Try lower rates, more epochs, or pairs more like those"
        )

    @property
    def _phases_done(self) -> int:
        return len(self._recipe.phases) if self._progress.finished else self._progress.phase

    def _phases_wanted(self, until: str | None) -> int:
        names = [phase.name for phase in self._recipe.phases]
        if until is not None and until not in names:
            raise RecipeError(f"no phase is called {until!r}: this recipe has {', '.join(map(repr, names))}")
        wanted = len(names) if until is None else names.index(until) + 1
        if self._phases_done + bool(self._progress.epoch or self._progress.step) > wanted:
            raise RecipeError(f"the run in {self._folder} is beyond phase {until!r}: name another --folder")
        return wanted

    def _changes(self) -> dict[str, object]:
        """What became of the held-out sets, for the bundle; told, logged, and warned of where one fell."""
        changes = self._beginning.changes()
        self._reporter.changes(self._progress.total_steps, changes)
        self._reporter.warn(forgotten(changes))
        return {"before_and_after": records_of(changes)} if changes else {}

    def _phase(self, phase: Phase) -> None:
        adam, average = self._movers(phase)
        feeds = Feeds.open(self._prepared, self._learner, phase, reporter=self._reporter)
        self._learner.kept_texts = feeds.texts
        stepper = Stepper(self._learner, feeds, phase, adam, self._processes.rank, self._mimicry)
        for epoch in range(self._progress.epoch, phase.epochs_run):
            self._epoch(stepper, average)
            last = epoch + 1 == phase.epochs_run
            if self._validate_now(epoch, last) and self._validated(average, feeds) and not last:
                self._reporter.say("  stopped early: no better score for a while")
                break
            self._update(epoch=epoch + 1, step=0)
            self._save(adam, average)

    def _movers(self, phase: Phase) -> tuple[torch.optim.AdamW, MovingAverage]:
        """What moves the weights and what averages them, as far as a resumed run had them."""
        if not phase.freeze_norms and self._processes.count > 1:
            raise RecipeError(
                f"phase {phase.name!r}: freeze_norms = false is for one process: norms are not shared"
            )
        model, trained = self._learner.model, self._learner.begin(phase)
        adam = optimiser(model, trained, phase.rates)
        average = MovingAverage(model, trained, decay=self._recipe.ema)
        if self._resumed and (self._progress.epoch or self._progress.step):
            load_optimiser(adam, self._resumed)
            average.load(_under(self._resumed, "average."), self._progress.average_updates)
        self._resumed = {}
        moved = sum(parameter.numel() for group in adam.param_groups for parameter in group["params"])
        self._reporter.say(f"phase {phase.name!r}: {phase.epochs} epochs, {moved / 1e6:.2f} M parameters learn")
        return adam, average

    def _epoch(self, stepper: Stepper, average: MovingAverage) -> None:
        phase, adam, feeds = stepper.phase, stepper.adam, stepper.feeds
        key = (self._recipe.seed, self._progress.phase, self._progress.epoch)
        mixture = self._prepared.mixture
        order = mixture.epoch(*key)
        batch = _global_batch(phase.batch, len(order), self._processes.count)
        if phase.hard_negatives:
            near = self._beginning.neighbours()
            order = gathered(order, near, *key, batch=batch, share=phase.hard_negatives)
        steps = len(order) // batch
        saved = time.monotonic()

        def drawn(step: int) -> list[Draw]:
            images = order[step * batch : min(step + 1, steps) * batch]  # none beyond the last step
            whole = mixture.draw(images, *key, step, views=phase.views, captions=phase.captions)
            return whole[self._processes.share(len(whole))]

        title = f"{phase.name} {self._progress.epoch + 1}/{phase.epochs}"
        with self._reporter.bar(title, steps * batch, done=self._progress.step * batch) as bar:
            following = drawn(self._progress.step)
            for step in range(self._progress.step, steps):
                set_rate(adam, _share_of_peak(phase, self._progress.epoch * steps + step, steps))
                draws, following = following, drawn(step + 1)
                feeds.turn(following)
                self._loss = stepper.take(draws, *key, step)
                average.update()
                self._tell(bar, adam, batch)
                done = self._progress.total_steps + 1
                self._update(step=step + 1, total_steps=done, average_updates=average.updates)
                if time.monotonic() - saved >= self._checkpoint_seconds:
                    self._save(adam, average)
                    saved = time.monotonic()
        feeds.turn()

    def _tell(self, bar: Bar, adam: torch.optim.AdamW, batch: int) -> None:
        scale = math.exp(self._learner.log_scale.item())
        bar.advance(batch, note=f"loss {self._loss:.3f}  scale {scale:.1f}  {self._recall}".rstrip())
        self._reporter.record(
            self._progress.total_steps + 1, loss=self._loss, logit_scale=scale, lr=adam.param_groups[0]["lr"]
        )

    def _validate_now(self, epoch: int, last: bool) -> bool:
        validation = self._recipe.validation
        return validation is None or last or (epoch + 1) % validation.every_epochs == 0

    def _validated(self, average: MovingAverage, feeds: Feeds) -> bool:
        """Validate the average and keep it when it is the best; True when patience is at its end."""
        validation = self._recipe.validation
        average.swap()
        if validation is None:
            self._keep_best(None)
            average.swap()
            return False
        outcomes = validate(self._learner, self._prepared.held_out, feeds.plain)
        self._reporter.outcomes(self._progress.total_steps, outcomes)
        self._reporter.warn([text for outcome in outcomes for text in health_warnings(outcome.health)])
        score = self._processes.agreed(mean_score(outcomes))
        self._recall = f"R@10 {100 * outcomes[0].recall['t2i@10']:.1f}"
        trained = self._progress.best_trained_score
        self._update(best_trained_score=score if trained is None else max(score, trained))
        better = self._progress.best_score is None or score > self._progress.best_score
        if better:
            self._keep_best(score)
        average.swap()
        without = 0 if better else self._progress.validations_without_gain + 1
        self._update(validations_without_gain=without)
        return 0 < validation.patience <= without

    def _keep_best(self, score: float | None) -> None:
        self._update(best_score=score)
        if self._processes.first:
            save_tensors(self._folder / BEST, _named(self._learner.model, "model."), progress=self._progress)

    def _load_best(self) -> Progress:
        """The best weights so far, and where the run stood when it had them."""
        self._processes.wait()
        tensors, progress = load_tensors(self._folder / BEST)
        _load_model(self._learner.model, tensors, "model.")
        return progress

    def _save(self, adam: torch.optim.AdamW | None, average: MovingAverage | None) -> None:
        if not self._processes.first:
            return
        tensors = _named(self._learner.model, "model.")
        if adam is not None and average is not None:
            tensors |= optimiser_tensors(adam)
            tensors |= {f"average.{name}": tensor for name, tensor in average.shadow.items()}
        save_tensors(self._folder / CHECKPOINT, tensors, progress=self._progress)

    def _update(self, **changes: object) -> None:
        self._progress = self._progress.model_copy(update=changes)


def _share_of_peak(phase: Phase, step: int, steps_an_epoch: int) -> float:
    total = steps_an_epoch * phase.epochs
    return cosine_with_warmup(step, steps=total, warmup_steps=int(phase.warmup * total))


def _global_batch(wanted: int, available: int, processes: int) -> int:
    """At most what an epoch has, and a multiple of the processes."""
    batch = min(wanted, available) // processes * processes
    if batch < 2 * processes:
        raise RecipeError(
            f"an epoch has {available} images, too few for {processes} processes: at least two for each"
        )
    return batch


def _named(model: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_model(model: nn.Module, tensors: dict[str, torch.Tensor], prefix: str) -> None:
    model.load_state_dict(_under(tensors, prefix))

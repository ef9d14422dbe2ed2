"""The training loop, which knows no images and no models: all arrives as arguments."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import numpy as np

from emnist_jax.cli import console, interrupts
from emnist_jax.cli.interrupts import Interrupted
from emnist_jax.devices import parallel, processes
from emnist_jax.storage.checkpoints import StepCheckpoints, load, restore_like
from emnist_jax.storage.results import MetricsLog
from emnist_jax.training import health
from emnist_jax.training.clock import Clock
from emnist_jax.training.feed import Batches
from emnist_jax.training.step import Step, TrainState

LOG_EVERY = 20  # steps between two lines of the log

# The state after an epoch, which it may change, to that and its metrics: 'loss', by
# which the best epoch is chosen, and others to be said and logged.
Validate = Callable[[TrainState], tuple[TrainState, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and how to speak of it.

    Attributes:
      epochs: at most.
      steps_per_epoch: between two validations.
      batch_size: examples a step.
      patience: epochs without a better validation loss after which to stop; 0: never.
      save_minutes: between two checkpoints inside an epoch.
      loss: name of the loss.
      unit: what the examples are.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    patience: int = 0
    save_minutes: float = 5.0
    loss: str = "loss"
    unit: str = "images"


@dataclasses.dataclass
class Progress:
    """Where the training stands; saved with the train state."""

    epoch: int = 0  # of the next step, from 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0  # over the steps of this epoch
    dead_steps: int = 0  # in a row
    train_loss: float | None = None  # of the last whole epoch, as the next one
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    best_step: int | None = None
    best_epoch: int | None = None
    best_train_loss: float | None = None
    epochs_without_improvement: int = 0
    stopped: str | None = None
    seconds: float = 0.0  # of training and validation
    examples: int = 0  # trained in those seconds

    def last_is_best(self, step: int) -> None:
        """Makes the last whole epoch, which ended with `step`, the best one."""
        self.best_step, self.best_epoch = step, self.epoch
        self.best_train_loss = self.train_loss
        self.best_validation_loss = self.validation_loss


def fit(
    state: TrainState,
    step: Step,
    batches: Batches,
    validate: Validate,
    checkpoints: StepCheckpoints,
    log: MetricsLog,
    plan: Plan,
) -> tuple[Any, Progress]:
    """Trains to the end, from the latest checkpoint if there is one.

    Args:
      state: before the first step.
      step: a compiled `(state, batch) -> (state, metrics)`, one or several steps;
        its metrics are those of `make_train_step`, `[]` or `[steps]`.
      batches: of an epoch, from a step in it on.
      validate: judges the state at the end of an epoch.
      checkpoints: where states go.
      log: where metrics go.
      plan: how long.

    Returns:
      The exported parameters with the best validation loss, as NumPy arrays, and
      the final progress.

    Raises:
      TrainingFailed: the training is dead, or the loss is not finite.
      Interrupted: a signal came; a checkpoint is saved.
    """
    training = _Training(state, plan, checkpoints, log)
    state = parallel.replicate(training.resume())
    if _interrupted():  # in start-up: there is nothing new to save
        raise Interrupted(interrupts.requested())
    while not training.progress.stopped:
        with contextlib.suppress(Interrupted):  # what was done by then is saved
            state = training.epoch(state, step, batches)
            if not _interrupted():
                state, values = validate(state)
                training.end_epoch(values)
        training.save(state)
        if _interrupted():
            raise Interrupted(
                interrupts.requested(),
                f"interrupted: saved at {training.position()}, in "
                f"{checkpoints.folder}; the same command goes on from there",
            )
    return training.best(state), training.progress


def _interrupted() -> bool:
    """Whether any process has got a signal; all ask at the same place."""
    interrupted = processes.agree(interrupts.requested() is not None)
    if interrupted:
        interrupts.request(signal.SIGTERM)  # on every process
    return interrupted


class _Training:
    """One training's progress, its files and its clock."""

    def __init__(self, template, plan, checkpoints, log):
        self.progress = Progress()
        self._template = template
        self._plan = plan
        self._checkpoints = checkpoints
        self._log = log
        self._saved: tuple[int, int] | None = None  # epoch and step in it
        self._clock = Clock(plan.batch_size, plan.unit)

    @property
    def _step(self) -> int:
        return (
            self.progress.epoch * self._plan.steps_per_epoch
            + self.progress.step_in_epoch
        )

    def position(self) -> str:
        """Where the training stands, for people."""
        if self.progress.stopped:
            return "the end of training"
        step = f"{self.progress.step_in_epoch} of {self._plan.steps_per_epoch}"
        return f"epoch {self.progress.epoch + 1}, step {step}"

    def epoch(self, state: TrainState, step: Step, batches: Batches) -> TrainState:
        """Makes the steps left in this epoch, with checkpoints now and then."""
        plan, progress = self._plan, self.progress
        pending = None  # metrics of a call are read while the next one runs
        last_save = time.monotonic()
        parts = batches(progress.epoch, progress.step_in_epoch)
        with self._bar() as bar, contextlib.closing(parts):
            for call, (count, batch) in enumerate(parts):
                first_step = self._step + 1
                state, values = step(state, batch)
                if pending:
                    self._account(*pending)
                pending = first_step, values
                progress.step_in_epoch += count
                bar.update(count * plan.batch_size)
                self._clock.tick(count, plan.epochs * plan.steps_per_epoch - self._step)
                if not processes.may_agree(call):
                    continue
                if _interrupted():
                    break
                due = time.monotonic() - last_save > 60 * plan.save_minutes
                if processes.agree(due):
                    self._account(*pending)
                    pending = None
                    self.save(state)
                    last_save = time.monotonic()
        if pending:
            self._account(*pending)
        return state

    def _account(self, first_step: int, values: dict) -> None:
        """Checks, sums and logs the metrics of one compiled call."""
        values = {name: np.atleast_1d(value) for name, value in values.items()}
        for i in range(len(values["loss"])):
            step, progress = first_step + i, self.progress
            row = {name: float(value[i]) for name, value in values.items()}
            progress.dead_steps = health.check(step, row, progress.dead_steps)
            progress.loss_sum += row["loss"]
            progress.examples += self._plan.batch_size
            if step % LOG_EVERY == 0 and processes.is_writer():
                epoch = step / self._plan.steps_per_epoch
                self._log.write(event="step", step=step, epoch=epoch, **row)

    def end_epoch(self, values: dict[str, float]) -> None:
        """Best epoch and early stopping, from the validation loss."""
        plan, progress = self._plan, self.progress
        step, loss = self._step, values["loss"]
        train_loss = progress.loss_sum / plan.steps_per_epoch
        best = progress.best_validation_loss
        improved = best is None or loss < best
        progress.epoch += 1
        progress.step_in_epoch, progress.loss_sum = 0, 0.0
        progress.train_loss, progress.validation_loss = train_loss, loss
        progress.epochs_without_improvement += 1
        if improved:
            progress.last_is_best(step)
            progress.epochs_without_improvement = 0
        if progress.epoch == plan.epochs:
            progress.stopped = "completed"
        elif 0 < plan.patience <= progress.epochs_without_improvement:
            progress.stopped = "early stopping"
        others = {name: value for name, value in values.items() if name != "loss"}
        shown = "".join(f"  {k.replace('_', ' ')} {v:g}" for k, v in others.items())
        console.say(
            f"epoch {progress.epoch:>3}/{plan.epochs}  {plan.loss}: train "
            f"{train_loss:.5f}  validation {loss:.5f}{shown}"
            f"{'  best' if improved else ''}"
        )
        if processes.is_writer():
            self._log.write(
                event="epoch",
                step=step,
                epoch=progress.epoch,
                train_loss=train_loss,
                validation_loss=loss,
                **others,
            )

    def save(self, state: TrainState) -> None:
        """Saves state and progress, unless that has been done here."""
        progress = self.progress
        progress.seconds += self._clock.lap()
        position = progress.epoch, progress.step_in_epoch
        if position == self._saved:
            return
        self._saved, step = position, self._step
        if processes.is_writer():
            tree = flax.serialization.to_state_dict(jax.device_get(state))
            metadata = {"progress": dataclasses.asdict(progress)}
            self._checkpoints.save(step, tree, metadata, progress.best_step)
        processes.barrier(f"saved {step}")

    def resume(self) -> TrainState:
        """The latest state that was saved; the template if there is none."""
        state, found = self._template, self._checkpoints.latest()
        if found:
            tree, metadata = found
            state = self._to_state(tree)
            self.progress = progress = Progress(**metadata["progress"])
            self._saved = progress.epoch, progress.step_in_epoch
            console.say(f"resuming at {self.position()}")
            best = progress.best_step
            if not (
                progress.stopped or best is None or self._checkpoints.is_good(best)
            ):
                console.warn("the best epoch is lost: later ones replace it")
                progress.best_validation_loss = progress.best_step = None
        if processes.is_writer():
            self._log.rewind(self._step, self.progress.epoch, console.warn)
        return state

    def best(self, state: TrainState) -> Any:
        """Parameters of the best epoch; of the last one if the best one is lost."""
        best = self.progress.best_step
        if best != self._step and self._checkpoints.is_good(best):
            tree, _ = load(self._checkpoints.path(best))
            return self._to_state(tree).exported
        if best != self._step:
            console.warn("the best epoch is lost: the last one replaces it")
            self.progress.last_is_best(self._step)
        return jax.device_get(state.exported)

    def _to_state(self, tree: Any) -> TrainState:
        expected = flax.serialization.to_state_dict(self._template)
        tree = restore_like(expected, tree, self._checkpoints.folder)
        return flax.serialization.from_state_dict(self._template, tree)

    def _bar(self):
        plan, progress = self._plan, self.progress
        return console.bar(
            plan.steps_per_epoch * plan.batch_size,
            f"epoch {progress.epoch + 1}/{plan.epochs}",
            plan.unit,
            initial=progress.step_in_epoch * plan.batch_size,
            unit_scale=True,
        )

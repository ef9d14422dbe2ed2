"""The training loop: epochs, validation, checkpoints, and what ends it early."""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import numpy as np
from tqdm import tqdm

from emnist_jax import metrics, parallel
from emnist_jax.checkpoints import StepCheckpoints, load, restore_like
from emnist_jax.config import Config
from emnist_jax.data.batches import epoch_rows
from emnist_jax.feed import Feed, lives_on_device
from emnist_jax.interrupts import Interrupted, Interrupts
from emnist_jax.models.autoencoder import Autoencoder, to_unit_range
from emnist_jax.monitor import Clock, Monitor, profile
from emnist_jax.optimizer import Plateau
from emnist_jax.results import MetricsLog
from emnist_jax.step import TrainState, create_state, make_train_step


@dataclasses.dataclass
class Progress:
    """Where the training stands: all that is not in the train state."""

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
    plateau: Plateau = dataclasses.field(default_factory=Plateau)
    stopped: str | None = None
    seconds: float = 0.0  # of training and validation
    images: int = 0  # trained in those seconds

    def last_is_best(self, step: int) -> None:
        """Makes the last whole epoch, which ended with `step`, the best one."""
        self.best_step, self.best_epoch = step, self.epoch
        self.best_train_loss = self.train_loss
        self.best_validation_loss = self.validation_loss

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "plateau": Plateau(**values["plateau"])})


class Trainer:
    """Trains one model in its run folder, resumably."""

    def __init__(
        self,
        config: Config,
        model: Autoencoder,
        train_images: np.ndarray,
        validation_images: np.ndarray,
        initial: dict[str, Any],
        checkpoints: StepCheckpoints,
        log: MetricsLog,
        interrupts: Interrupts,
        say: Callable[[str], None],
    ):
        """Names what to train on and from, and where to save, log and report.

        Args:
          config: the run's settings.
          model: the autoencoder.
          train_images: uint8 `[N, 28, 28, 1]`.
          validation_images: the same.
          initial: parameters of the encoder, the decoder or both to start from.
          checkpoints: where states go.
          log: where metrics go.
          interrupts: what may ask to stop.
          say: reports a line.
        """
        self._config = config
        self._model = model
        self._train_images = train_images
        self._validation_images = validation_images
        self._initial = initial
        self._checkpoints = checkpoints
        self._log = log
        self._interrupts = interrupts
        self._say = say
        self._steps_per_epoch = len(train_images) // config.batch_size
        self._first_epoch = True  # of this process
        self._saved: tuple[int, int] | None = None  # epoch and step in it
        self._monitor = Monitor(config, log, self._steps_per_epoch)

    def fit(self) -> tuple[Any, Progress]:
        """Trains to the end, from the latest checkpoint if there is one.

        Returns:
          The parameters with the best validation loss, as NumPy arrays, and the
          final progress.

        Raises:
          TrainingFailed: the training is dead, or the loss is not finite.
          Interrupted: a signal came; a checkpoint is saved.
        """
        config = self._config
        template = create_state(config, self._model, self._initial)
        state, progress = self._resume(template)
        on_device = lives_on_device(config.data_placement, self._train_images)
        total_steps = self._steps_per_epoch * config.epochs
        train_step = make_train_step(config, self._model, total_steps)
        feed = Feed(self._train_images, train_step, on_device)
        state = parallel.replicate(state)
        if self._is_interrupted():  # in start-up: there is nothing new to save
            raise Interrupted(self._interrupts.requested)
        steps_left = total_steps - self._step(progress)
        clock = Clock(config.batch_size, steps_left, self._say)
        while not progress.stopped:
            state = self._epoch(feed, state, progress, clock)
        return self._best_params(template, state, progress), progress

    def _epoch(
        self, feed: Feed, state: TrainState, progress: Progress, clock: Clock
    ) -> TrainState:
        """Trains to the end of the epoch, validates and saves."""
        with contextlib.suppress(Interrupted):  # what was done by then is saved
            state = self._steps(feed, state, progress, clock)
            if not self._is_interrupted():
                images = self._validation_images
                loss, active = validate(self._model, state.exported, images)
                state = self._end_epoch(state, progress, loss, active)
        self._save(state, progress, clock)
        if self._is_interrupted():
            raise Interrupted(
                self._interrupts.requested,
                f"interrupted: saved at {self._position(progress)}, in "
                f"{self._checkpoints.folder}; the same command goes on from there",
            )
        return state

    def _is_interrupted(self) -> bool:
        """Whether any process has got a signal; all ask at the same place."""
        interrupted = parallel.agree(self._interrupts.requested is not None)
        if interrupted:
            self._interrupts.request(signal.SIGTERM)  # on every process
        return interrupted

    def _steps(
        self, feed: Feed, state: TrainState, progress: Progress, clock: Clock
    ) -> TrainState:
        """Makes the steps left in this epoch, with checkpoints now and then."""
        config = self._config
        rows = epoch_rows(
            len(self._train_images), config.batch_size, config.seed, progress.epoch
        )
        pending = None  # metrics of a call are read while the next one runs
        last_save = time.monotonic()
        batches = feed.batches(rows[progress.step_in_epoch :], progress.epoch == 0)
        with (
            self._bar(progress) as bar,
            contextlib.closing(batches),
            contextlib.ExitStack() as trace,
        ):
            for call, (count, batch) in enumerate(batches):
                if config.profile and call in (1, 11) and self._first_epoch:
                    trace.close()  # calls 1 to 10: the first one compiles
                    if call == 1:
                        folder = self._checkpoints.folder.parent / "profile"
                        trace.enter_context(profile(folder))
                first_step = self._step(progress) + 1
                state, values = feed.run(state, batch)
                if pending:
                    self._monitor.account(progress, *pending)
                pending = first_step, values
                progress.step_in_epoch += count
                bar.update(count * config.batch_size)
                clock.tick(count)
                if not parallel.may_agree(call):
                    continue
                if self._is_interrupted():
                    break
                due = time.monotonic() - last_save > 60 * config.checkpoint_minutes
                if parallel.agree(due):
                    self._monitor.account(progress, *pending)
                    pending = None
                    self._save(state, progress, clock)
                    last_save = time.monotonic()
        if pending:
            self._monitor.account(progress, *pending)
        self._first_epoch = False
        return state

    def _end_epoch(
        self, state: TrainState, progress: Progress, loss: float, active: int
    ) -> TrainState:
        """Best epoch, plateau and early stopping, from the validation loss."""
        config = self._config
        train_loss = progress.loss_sum / self._steps_per_epoch
        step = self._step(progress)
        best = progress.best_validation_loss
        improved = best is None or loss < best
        progress.epoch += 1
        progress.step_in_epoch, progress.loss_sum = 0, 0.0
        progress.train_loss, progress.validation_loss = train_loss, loss
        if improved:
            progress.last_is_best(step)
            progress.epochs_without_improvement = 0
        else:
            progress.epochs_without_improvement += 1
        if config.schedule == "plateau":
            progress.plateau = progress.plateau.update(loss, config.learning_rate)
            scale = np.float32(progress.plateau.scale)
            state = state.replace(learning_rate_scale=parallel.replicate(scale))
        patience = config.early_stopping_patience
        if progress.epoch == config.epochs:
            progress.stopped = "completed"
        elif patience and progress.epochs_without_improvement >= patience:
            progress.stopped = "early stopping"
        self._say(
            f"epoch {progress.epoch:>3}/{config.epochs}  train {train_loss:.5f}  "
            f"validation {loss:.5f}  active latents {active}/{config.latent_dim}"
            f"{'  best' if improved else ''}"
        )
        if parallel.is_writer():
            self._log.write(
                event="epoch",
                step=step,
                epoch=progress.epoch,
                train_loss=train_loss,
                validation_loss=loss,
                active_latents=active,
            )
        return state

    def _position(self, progress: Progress) -> str:
        if progress.stopped:
            return "the end of training"
        step = f"{progress.step_in_epoch} of {self._steps_per_epoch}"
        return f"epoch {progress.epoch + 1}, step {step}"

    def _save(self, state: TrainState, progress: Progress, clock: Clock) -> None:
        progress.seconds += clock.lap()
        position = progress.epoch, progress.step_in_epoch
        if position == self._saved:
            return
        self._saved = position
        step = self._step(progress)
        if parallel.is_writer():
            tree = flax.serialization.to_state_dict(jax.device_get(state))
            metadata = {"progress": dataclasses.asdict(progress)}
            self._checkpoints.save(step, tree, metadata, progress.best_step)
        parallel.barrier(f"saved {step}")

    def _resume(self, template: TrainState) -> tuple[TrainState, Progress]:
        state, progress = template, Progress()
        found = self._checkpoints.latest()
        if found:
            tree, metadata = found
            state = self._to_state(template, tree)
            progress = Progress.from_dict(metadata["progress"])
            self._saved = progress.epoch, progress.step_in_epoch
            self._say(f"resuming at {self._position(progress)}")
            best = progress.best_step
            if not (
                progress.stopped or best is None or self._checkpoints.is_good(best)
            ):
                self._checkpoints.warn("the best epoch is lost: later ones replace it")
                progress.best_validation_loss = progress.best_step = None
        if parallel.is_writer():
            step = self._step(progress)
            self._log.rewind(step, progress.epoch, self._checkpoints.warn)
        return state, progress

    def _best_params(
        self, template: TrainState, state: TrainState, progress: Progress
    ) -> Any:
        """Parameters of the best epoch; of the last one if the best one is lost."""
        step, best = self._step(progress), progress.best_step
        if best != step and self._checkpoints.is_good(best):
            tree, _ = load(self._checkpoints.path(best))
            return self._to_state(template, tree).exported
        if best != step:
            self._checkpoints.warn("the best epoch is lost: the last one replaces it")
            progress.last_is_best(step)
        return jax.device_get(state.exported)

    def _to_state(self, template: TrainState, tree: Any) -> TrainState:
        expected = flax.serialization.to_state_dict(template)
        tree = restore_like(expected, tree, self._checkpoints.folder)
        return flax.serialization.from_state_dict(template, tree)

    def _step(self, progress: Progress) -> int:
        return progress.epoch * self._steps_per_epoch + progress.step_in_epoch

    def _bar(self, progress: Progress) -> tqdm:
        return tqdm(
            total=self._steps_per_epoch * self._config.batch_size,
            initial=progress.step_in_epoch * self._config.batch_size,
            desc=f"epoch {progress.epoch + 1}/{self._config.epochs}",
            unit=" images",
            unit_scale=True,
            leave=False,
            disable=None if parallel.is_writer() else True,
        )


def validate(model: Autoencoder, params: Any, images: np.ndarray) -> tuple[float, int]:
    """Mean squared error over all images, and how many latents vary over them."""
    values = parallel.map_rows(_validation_step(model), params, images)
    active = int((np.ptp(values["latents"], axis=0) > 0).sum())
    return float(values["mse"].mean(dtype=np.float64)), active


@functools.cache
def _validation_step(model: Autoencoder) -> Callable:
    def step(params: Any, images: jax.Array) -> dict[str, jax.Array]:
        targets = to_unit_range(images)
        output = model.apply({"params": params}, targets)
        outputs = output.images.astype(targets.dtype)
        return {"mse": metrics.mse(targets, outputs), "latents": output.latents}

    return step

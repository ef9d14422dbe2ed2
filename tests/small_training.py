"""A training of one number, through the real loop, feed and checkpoints."""

import contextlib
import functools

import jax.numpy as jnp
import numpy as np

from emnist_jax.cli import console
from emnist_jax.storage.checkpoints import StepCheckpoints
from emnist_jax.storage.results import MetricsLog
from emnist_jax.training import loop
from emnist_jax.training.feed import epoch_rows, make_feed
from emnist_jax.training.optimizer import OPTIMIZERS, make_optimizer
from emnist_jax.training.step import create_state, make_train_step

EXAMPLES, BATCH_SIZE = 40, 8  # five steps an epoch


def _loss(params, batch, step):
    del step
    return ((params["w"] - batch) ** 2).mean(), {}


class SmallTraining:
    """Fits `w` to the mean of 40 numbers.

    Attributes:
      checkpoints: of the training.
      lines: what it says and warns of.
      optimizer, train_step, examples: what `fit` trains with.
    """

    def __init__(self, folder, *, interrupts=None, losses=None, **plan):
        """Trains in `folder`; `losses` are validation losses to pretend."""
        folder.mkdir(exist_ok=True)
        self.lines, self._folder = [], folder
        self.checkpoints = StepCheckpoints(folder / "checkpoints", self.lines.append)
        self._interrupts = interrupts
        self._losses = None if losses is None else iter(losses)
        self._plan = {"epochs": 2, "batch_size": BATCH_SIZE} | plan
        self.optimizer = make_optimizer(
            OPTIMIZERS["adam"](), lambda step: jnp.float32(0.1)
        )
        self.train_step = make_train_step(_loss, self.optimizer)
        self.examples = np.linspace(0, 1, EXAMPLES, dtype=np.float32)[:, None]

    def template(self):
        """The state before the first step."""
        return create_state({"w": jnp.zeros([])}, self.optimizer)

    def validate(self, state):
        """The squared distance to the mean, or the next of `losses`."""
        loss = float((state.params["w"] - 0.5) ** 2)
        return state, {"loss": loss if self._losses is None else next(self._losses)}

    def fit(self):
        """Parameters and progress."""
        batch_size = self._plan["batch_size"]
        rows = functools.partial(epoch_rows, EXAMPLES, batch_size, 0)
        step, batches = make_feed(self.train_step, self.examples, rows)
        plan = loop.Plan(steps_per_epoch=EXAMPLES // batch_size, **self._plan)
        log = MetricsLog(self._folder / "metrics.jsonl")
        with contextlib.ExitStack() as stack:
            for name in ("say", "warn"):
                real = getattr(console, name)
                setattr(console, name, self.lines.append)
                stack.callback(setattr, console, name, real)
            if self._interrupts:
                stack.enter_context(self._interrupts.noted())
            return loop.fit(
                self.template(),
                step,
                batches,
                self.validate,
                self.checkpoints,
                log,
                plan,
            )

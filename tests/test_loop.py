"""The training loop, on the real model where that matters and on a tiny one else."""

import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import SmallTraining

from emnist_jax.cli import console
from emnist_jax.cli.interrupts import Interrupted, Interrupts
from emnist_jax.config import compose, make_config
from emnist_jax.storage import checkpoints
from emnist_jax.storage.results import MetricsLog, read_metrics
from emnist_jax.training import health, loop
from emnist_jax.training.feed import epoch_rows, make_feed
from emnist_jax.training.step import make_train_step


@functools.cache
def composed(config, count, mean):
    """Model, first state and compiled step of a config: compiled once for all tests."""
    model = compose.autoencoder(config, mean)
    optimizer = compose.optimizer(config, count // config.batch_size * config.epochs)
    train_step = make_train_step(compose.loss_of(config, model), optimizer)
    return model, compose.first_state(config, model, optimizer), train_step


@functools.cache
def stepper(train_step):
    """The step over all devices."""
    return make_feed(train_step, np.zeros(0), None)[0]


def train(folder, images, train_count=40, **settings):
    """Trains the real model in a folder; its parameters and progress."""
    folder.mkdir(exist_ok=True)
    config = make_config(
        **{"epochs": 3, "batch_size": 8, "dataset": "glyphs", **settings}
    )
    images, held_out = images[:train_count], images[train_count:]
    model, state, train_step = composed(config, len(images), images.mean() / 255)
    rows = functools.partial(epoch_rows, len(images), config.batch_size, config.seed)
    on_device = config.data_placement == "device"
    step, batches = make_feed(train_step, images, rows, on_device)
    return loop.fit(
        jax.tree.map(jnp.copy, state),
        step if on_device else stepper(train_step),
        batches,
        compose.validation(config, model, held_out),
        step_checkpoints(folder),
        MetricsLog(folder / "metrics.jsonl"),
        loop.Plan(
            config.epochs,
            len(images) // config.batch_size,
            config.batch_size,
            config.early_stopping_patience,
            loss=config.loss,
        ),
    )


def step_checkpoints(folder):
    return checkpoints.StepCheckpoints(folder / "checkpoints", console.warn)


def epochs_of(folder):
    log = read_metrics(folder / "metrics.jsonl", print)
    return [x for x in log if x["event"] == "epoch"]


class StopAfter(Interrupts):
    """Asks to stop once it has been asked `count` times."""

    def __init__(self, count):
        self._count = count
        super().__init__()

    @property
    def requested(self):
        self._count -= 1
        return signal.SIGTERM if self._count < 0 else None

    @requested.setter
    def requested(self, value):
        pass


@pytest.mark.parametrize(
    "preset", ["published", pytest.param("best", marks=pytest.mark.long)]
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, images, preset, capsys):
    settings = {"preset": preset, "loss": "mae"}
    straight, progress = train(tmp_path / "a", images, **settings)
    assert "mae: train " in capsys.readouterr().out
    stops = 0
    for count in (4, 12, 200):
        try:
            with StopAfter(count).noted():
                params, again = train(tmp_path / "b", images, **settings)
        except Interrupted as interruption:
            assert interruption.signal_number == signal.SIGTERM
            assert "the same command goes on" in str(interruption)
            stops += 1
    assert stops == 2
    jax.tree.map(np.testing.assert_array_equal, straight, params)
    assert progress.best_validation_loss == again.best_validation_loss
    assert progress.examples == again.examples == 3 * 40
    logs = [read_metrics(tmp_path / x / "metrics.jsonl", print) for x in "ab"]
    assert logs[0] == logs[1] and len(logs[0]) == 3
    # The best epoch is chosen by the loss that is trained; the other is said beside it.
    losses = [x["validation_loss"] for x in epochs_of(tmp_path / "a")]
    assert min(losses) == progress.best_validation_loss
    assert all(x["mse"] < x["validation_loss"] for x in epochs_of(tmp_path / "a"))
    if preset == "best":  # it learns
        trained = [x["train_loss"] for x in epochs_of(tmp_path / "a")]
        assert trained[-1] < 0.85 * trained[0]


def test_the_best_epoch_is_returned(tmp_path):
    made = SmallTraining(tmp_path, losses=[0.5, 0.2, 0.4, 0.3], epochs=4)
    params, progress = made.fit()
    assert (progress.best_epoch, progress.best_step) == (2, 10)
    assert progress.stopped == "completed" and progress.epoch == 4
    saved, _ = checkpoints.load(made.checkpoints.path(10))
    assert params["w"] == saved["params"]["w"]
    assert made.checkpoints.steps() == [10, 15, 20]


def test_early_stopping(tmp_path):
    losses = [0.5, 0.6, 0.5, 0.4]
    made = SmallTraining(tmp_path, losses=losses, epochs=9, patience=2)
    _, progress = made.fit()
    assert (progress.stopped, progress.epoch) == ("early stopping", 3)
    assert progress.best_epoch == 1


@pytest.mark.long
@pytest.mark.parametrize("placement", ["device", "host"])
def test_dead_training_is_noticed_within_200_steps(tmp_path, images, placement):
    # A huge first step saturates the output sigmoid for good. 75 steps an epoch.
    with pytest.raises(health.TrainingFailed, match="dead at step") as failure:
        train(
            tmp_path,
            np.concatenate([images] * 3),
            train_count=150,
            learning_rate=5.0,
            epochs=60,
            batch_size=2,
            schedule="constant",
            data_placement=placement,
        )
    assert failure.value.status == "dead"
    step = int(str(failure.value).split("dead at step ")[1].split(":")[0])
    assert step <= 200
    assert "--output_bias=mean" in str(failure.value)


BAD = {"loss": np.nan, "gradient_norm": 1.0, "learning_rate": 1e-3}


def test_divergence_names_the_step():
    with pytest.raises(health.TrainingFailed, match="diverged at step 11: loss nan"):
        health.check(11, BAD, 0)
    assert health.check(11, BAD | {"loss": 0.1}, 7) == 0
    assert health.check(11, BAD | {"loss": 0.1, "gradient_norm": 0.0}, 7) == 8


def test_death_is_noticed_after_some_steps():
    dead = BAD | {"loss": 0.1, "output_range": 0.0}
    with pytest.raises(health.TrainingFailed, match="dead at step 50: ") as failure:
        for step in range(1, 60):
            assert health.check(step, dead, step - 1) == step
    assert failure.value.status == "dead"


def test_a_failed_training_keeps_its_last_good_checkpoints(tmp_path):
    made = SmallTraining(tmp_path, losses=[0.5], epochs=3)
    made.validate = lambda state, real=made.validate: (
        real(state) if not made.checkpoints.steps() else health.check(7, BAD, 0)
    )
    with pytest.raises(health.TrainingFailed):
        made.fit()
    assert made.checkpoints.steps() == [5]
    assert made.checkpoints.is_good(5)

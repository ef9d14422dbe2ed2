import signal

import jax
import numpy as np
import pytest

from emnist_jax import checkpoints, loop, monitor
from emnist_jax.config import make_config
from emnist_jax.interrupts import Interrupted, Interrupts
from emnist_jax.results import MetricsLog, read_metrics
from emnist_jax.step import make_model


def trainer(folder, images, interrupts=None, train_count=40, initial=None, **settings):
    folder.mkdir(exist_ok=True)
    config = make_config(
        **{"epochs": 3, "batch_size": 8, "dataset": "glyphs", **settings}
    )
    lines = []
    made = loop.Trainer(
        config,
        make_model(config, images.mean() / 255),
        images[:train_count],
        images[train_count:],
        initial or {},
        checkpoints.StepCheckpoints(folder / "checkpoints", lines.append),
        MetricsLog(folder / "metrics.jsonl"),
        interrupts or Interrupts(),
        lines.append,
    )
    made.lines = lines
    return made


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


class StopAfter(Interrupts):
    """Asks to stop once `deferred` work has been asked `count` times."""

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


AVERAGED = {"preset": "robust", "weight_averaging": 0.2}


@pytest.mark.parametrize(
    "settings", [{"preset": "best"}, {"preset": "published"}, AVERAGED]
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, images, settings):
    straight, progress = trainer(tmp_path / "a", images, **settings).fit()
    stops = 0
    for count in (2, 5, 3, 20):
        try:
            params, again = trainer(
                tmp_path / "b", images, StopAfter(count), **settings
            ).fit()
        except Interrupted as interruption:
            assert interruption.signal_number == signal.SIGTERM
            assert "the same command goes on" in str(interruption)
            stops += 1
    assert stops >= 2
    assert_same(straight, params)
    assert progress.best_validation_loss == again.best_validation_loss
    assert progress.images == again.images == 3 * 40
    logs = [read_metrics(tmp_path / x / "metrics.jsonl", print) for x in "ab"]
    assert logs[0] == logs[1] and len(logs[0]) == 3


def test_training_learns(tmp_path, images):
    made = trainer(tmp_path, images, epochs=8, schedule="constant", learning_rate=1e-3)
    made.fit()
    epochs = [x for x in read_metrics(tmp_path / "metrics.jsonl", print)]
    losses = [x["validation_loss"] for x in epochs if x["event"] == "epoch"]
    assert losses[-1] < 0.7 * losses[0]


def test_placements_agree(tmp_path, images):
    losses = {}
    for placement in ("host", "device"):
        trainer(tmp_path / placement, images, data_placement=placement).fit()
        log = read_metrics(tmp_path / placement / "metrics.jsonl", print)
        losses[placement] = [(x["train_loss"], x["validation_loss"]) for x in log]
    np.testing.assert_allclose(losses["host"], losses["device"], rtol=1e-3)


def test_the_best_epoch_is_returned(tmp_path, images):
    made = trainer(tmp_path, images, epochs=4, learning_rate=2e-3, schedule="constant")
    params, progress = made.fit()
    loss, active = loop.validate(made._model, params, images[40:])
    assert loss == progress.best_validation_loss
    assert active == 32
    log = read_metrics(tmp_path / "metrics.jsonl", print)
    epochs = [x for x in log if x["event"] == "epoch"]
    assert min(x["validation_loss"] for x in epochs) == loss
    assert made._checkpoints.steps()[-1] == 20


def test_averaged_weights_are_validated_and_returned(tmp_path, images):
    settings = {"schedule": "constant", "learning_rate": 1e-3, "epochs": 2}
    last, _ = trainer(tmp_path / "last", images, **settings).fit()
    made = trainer(tmp_path / "mean", images, weight_averaging=0.2, **settings)
    mean, progress = made.fit()
    kernels = [x["encoder"]["conv1"]["kernel"] for x in (last, mean)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4
    loss, _ = loop.validate(made._model, mean, images[40:])
    assert loss == progress.best_validation_loss
    # The training itself is that without averages.
    logs = [
        read_metrics(tmp_path / x / "metrics.jsonl", print) for x in ("last", "mean")
    ]
    assert logs[0][-1]["train_loss"] == pytest.approx(logs[1][-1]["train_loss"])


def test_early_stopping(tmp_path, images):
    made = trainer(
        tmp_path, images, epochs=9, learning_rate=1e-8, early_stopping_patience=2
    )
    made._validation_images = np.full_like(images[:8], 255)
    real, losses = loop.validate, iter([0.5, 0.6, 0.5, 0.4])
    loop.validate = lambda *args: (next(losses), 32)
    try:
        _, progress = made.fit()
    finally:
        loop.validate = real
    assert (progress.stopped, progress.epoch) == ("early stopping", 3)
    assert progress.best_epoch == 1


@pytest.mark.parametrize("placement", ["host", "device"])
def test_dead_training_is_noticed_within_200_steps(tmp_path, images, placement):
    # A huge first step saturates the output sigmoid for good. 75 steps an epoch.
    made = trainer(
        tmp_path,
        np.concatenate([images] * 3),
        train_count=150,
        learning_rate=5.0,
        epochs=60,
        batch_size=2,
        schedule="constant",
        data_placement=placement,
    )
    with pytest.raises(monitor.TrainingFailed, match="dead at step") as failure:
        made.fit()
    assert failure.value.status == "dead"
    step = int(str(failure.value).split("dead at step ")[1].split(":")[0])
    assert step <= 200
    assert "--output_bias=mean" in str(failure.value)


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path, images):
    trainer(tmp_path, images, epochs=2).fit()
    good = trainer(tmp_path, images, epochs=3)
    state, progress = good._resume(loop.create_state(good._config, good._model))
    bad = monitor.Monitor(good._config, good._log, 5)
    values = {"loss": np.nan, "gradient_norm": 1.0, "output_range": 1.0}
    with pytest.raises(monitor.TrainingFailed, match="diverged at step 11: loss nan"):
        bad.account(progress, 11, values | {"learning_rate": 1e-3})
    assert good._checkpoints.steps() == [5, 10]
    assert all(good._checkpoints.is_good(step) for step in (5, 10))


def test_a_lost_best_checkpoint_is_said(tmp_path, images):
    trainer(tmp_path, images, epochs=2).fit()
    made = trainer(tmp_path, images, epochs=2)
    best = made._resume(loop.create_state(made._config, made._model))[1].best_step
    folder = made._checkpoints.path(best)
    next(folder.rglob("_METADATA")).unlink()
    again = trainer(tmp_path, images, epochs=2)
    again.fit()
    assert any("is damaged: _METADATA is missing" in line for line in again.lines)

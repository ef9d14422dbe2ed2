import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax.config import make_config
from emnist_jax.optimizer import (
    Plateau,
    learning_rate_schedule,
    make_optimizer,
    scale_by_keras_adam,
)


def keras_adam(gradients, rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-7):
    """Keras' documented update in plain NumPy, float64."""
    p, m, v = 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m += (g - m) * (1 - b1)
        v += (g * g - v) * (1 - b2)
        p -= rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + epsilon)
    return p


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-9])
def test_keras_adam_is_that_of_keras(scale):
    gradients = scale * np.random.default_rng(0).normal(size=20)
    optimizer = scale_by_keras_adam()
    params = {"w": jnp.zeros([1])}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g in gradients:
        direction, state = update({"w": jnp.full([1], g)}, state)
        params = jax.tree.map(lambda p, d: p - 1e-3 * d, params, direction)
    np.testing.assert_allclose(params["w"][0], keras_adam(gradients), rtol=2e-4)


def test_the_two_adams_differ_where_gradients_are_small():
    gradient = {"w": jnp.full([1], 1e-8)}
    steps = {}
    for name in ("adam", "keras_adam"):
        optimizer = make_optimizer(make_config(optimizer=name))
        steps[name] = optimizer.update(gradient, optimizer.init(gradient))[0]["w"][0]
    np.testing.assert_allclose(steps["adam"], 0.5, rtol=1e-3)  # 1e-8 / (1e-8 + 1e-8)
    np.testing.assert_allclose(steps["keras_adam"], 3.15e-3, rtol=0.01)


def test_schedules():
    def rates(steps, **settings):
        settings = {"learning_rate": 1e-3, "warmup_steps": 0} | settings
        schedule = learning_rate_schedule(make_config(**settings), 100)
        return [float(schedule(jnp.asarray(step))) for step in steps]

    np.testing.assert_allclose(rates([0, 99], schedule="constant"), [1e-3, 1e-3])
    np.testing.assert_allclose(rates([0, 99], schedule="plateau"), [1e-3, 1e-3])
    np.testing.assert_allclose(
        rates([0, 50, 100], schedule="cosine"), [1e-3, 5e-4, 0], atol=1e-9
    )
    np.testing.assert_allclose(
        rates([0, 4, 9, 50], schedule="constant", warmup_steps=10),
        [1e-4, 5e-4, 1e-3, 1e-3],
        rtol=1e-6,
    )
    np.testing.assert_allclose(  # at most a fifth of the run
        rates([0, 19, 20], schedule="constant", warmup_steps=500),
        [5e-5, 1e-3, 1e-3],
        rtol=1e-6,
    )


def test_plateau_is_that_of_keras():
    plateau, scales = Plateau(), []
    # The 2nd to 6th are no better than the 1st by 1e-4; the 8th starts a new wait.
    for loss in [0.05, *[0.04995] * 5, 0.0498, 0.03, *[0.02995] * 4, 0.02, 0.02]:
        plateau = plateau.update(loss, learning_rate=1e-3)
        scales.append(plateau.scale)
    np.testing.assert_allclose(scales, [1] * 5 + [0.1] * 9)
    for _ in range(20):  # never under 1e-4
        plateau = plateau.update(0.02, learning_rate=1e-3)
    np.testing.assert_allclose(plateau.scale, 0.1)
    assert Plateau(best=0.05, wait=4).update(0.04, 1e-3) == Plateau(1.0, 0.04, 0)
    assert Plateau(best=0.05, wait=4).update(0.06, 1e-4).scale == 1.0

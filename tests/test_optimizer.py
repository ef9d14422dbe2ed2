import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax.config import make_config
from emnist_jax.optimizer import (
    Plateau,
    averaging_decay,
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


def test_muon_steps_are_as_large_as_adams_and_orthogonal():
    generator = np.random.default_rng(0)
    # Of rank one but for a little: Adam would follow that one direction.
    strong = np.multiply.outer(generator.normal(size=72), generator.normal(size=16))
    kernel = strong + 0.1 * generator.normal(size=(72, 16))
    gradients = {
        "kernel": jnp.asarray(kernel.reshape(3, 3, 8, 16), jnp.float32),
        "output": jnp.ones([3, 3, 8, 1]),
        "bias": jnp.full([16], 1e-3),
    }
    optimizer = make_optimizer(make_config(optimizer="muon"))
    state = optimizer.init(gradients)
    for _ in range(3):
        steps, state = jax.jit(optimizer.update)(gradients, state)
    values = np.linalg.svd(steps["kernel"].reshape(72, 16), compute_uv=False)
    values /= 0.2 * 72**0.5
    assert 0.6 < values.min() and values.max() < 1.3
    assert np.linalg.cond(kernel) > 10
    for name in ("output", "bias"):  # vectors step as Adam's do
        np.testing.assert_allclose(steps[name], 1.0, rtol=1e-3)


def test_muon_keeps_a_momentum():
    optimizer = make_optimizer(make_config(optimizer="muon"))
    first, second = (
        {"w": jnp.asarray(np.random.default_rng(i).normal(size=(6, 4)), jnp.float32)}
        for i in (0, 1)
    )
    _, state = optimizer.update(first, optimizer.init(first))
    _, state = optimizer.update(second, state)
    np.testing.assert_allclose(
        state.mu["w"], 0.95 * first["w"] + second["w"], rtol=1e-6
    )


@pytest.mark.parametrize("part", [0.05, 0.2])
def test_averages_look_back_over_the_same_part_of_any_run(part):
    config = make_config(weight_averaging=part)
    for steps in (200, 2000):
        age = 0.0  # of the averaged weights, in steps
        for step in range(1, steps + 1):
            keep = float(averaging_decay(config, jnp.asarray(step)))
            age = keep * (age + 1)
        np.testing.assert_allclose(age / steps, part, rtol=0.05)


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

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emnist_jax.training.optimizer import (
    OPTIMIZERS,
    keras_adam,
    learning_rate_schedule,
    make_optimizer,
    muon,
    rate_state,
    reduce_on_plateau,
)


def adam_of_keras(gradients, rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-7):
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
    optimizer = keras_adam()
    params = {"w": jnp.zeros([1])}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g in gradients:
        direction, state = update({"w": jnp.full([1], g)}, state)
        params = jax.tree.map(lambda p, d: p + 1e-3 * d, params, direction)
    np.testing.assert_allclose(params["w"][0], adam_of_keras(gradients), rtol=2e-4)


def test_the_two_adams_differ_where_gradients_are_small():
    gradient = {"w": jnp.full([1], 1e-8)}
    steps = {}
    for name in ("adam", "keras_adam"):
        optimizer = OPTIMIZERS[name]()
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        steps[name] = -updates["w"][0]
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
    optimizer = muon()
    state = optimizer.init(gradients)
    for _ in range(3):
        steps, state = jax.jit(optimizer.update)(gradients, state, gradients)
    values = np.linalg.svd(steps["kernel"].reshape(72, 16), compute_uv=False)
    values /= 0.2 * 72**0.5
    assert 0.6 < values.min() and values.max() < 1.3
    assert np.linalg.cond(kernel) > 10
    for name in ("output", "bias"):  # vectors step as Adam's do, with Nesterov's look
        np.testing.assert_allclose(steps[name], -1.0, rtol=0.1)


def test_schedules():
    def rates(steps, **settings):
        name, warmup = settings["schedule"], settings.get("warmup_steps", 0)
        schedule = learning_rate_schedule(name, 1e-3, warmup, 100)
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
    optimizer = make_optimizer(optax.sgd(1.0), lambda step: jnp.float32(1e-3))
    params, scales = {"w": jnp.zeros([])}, []
    state = optimizer.init(params)
    # The 2nd to 6th are no better than the 1st by 1e-4; the 8th starts a new wait.
    for loss in [0.05, *[0.04995] * 5, 0.0498, 0.03, *[0.02995] * 4, 0.02, 0.02]:
        state = reduce_on_plateau(state, loss, peak=1e-3)
        scales.append(float(rate_state(state).scale))
    np.testing.assert_allclose(scales, [1] * 5 + [0.1] * 9)
    for _ in range(20):  # never under 1e-4
        state = reduce_on_plateau(state, 0.02, peak=1e-3)
    np.testing.assert_allclose(rate_state(state).scale, 0.1)
    updates, state = jax.jit(optimizer.update)({"w": jnp.ones([])}, state)
    np.testing.assert_allclose(updates["w"], -1e-4, rtol=1e-6)
    np.testing.assert_allclose(rate_state(state).rate, 1e-4, rtol=1e-6)


def test_a_frozen_part_stays():
    params = {"encoder": {"w": jnp.ones([4, 4])}, "decoder": {"w": jnp.ones([4, 4])}}
    for make in OPTIMIZERS.values():
        rate = jnp.float32(0.1)
        optimizer = make_optimizer(make(), lambda step, r=rate: r, frozen="encoder")
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        assert not updates["encoder"]["w"].any() and updates["decoder"]["w"].any()

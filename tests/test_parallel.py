import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import SmallTraining

from emnist_jax.cli.errors import UserError
from emnist_jax.devices import parallel
from emnist_jax.devices.mapping import AXIS
from emnist_jax.models.layers import Conv, ConvTranspose
from emnist_jax.training.feed import epoch_rows, make_feed
from emnist_jax.training.optimizer import OPTIMIZERS, make_optimizer
from emnist_jax.training.step import create_state, make_epoch_step, make_train_step

WORKER = pathlib.Path(__file__).parent / "workers" / "steps.py"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder, images, devices, *distributed):
    np.save(folder / "images.npy", images)
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    files = [str(folder / "images.npy"), str(folder / "results.npz")]
    return subprocess.Popen(
        [sys.executable, str(WORKER), *files, *map(str, distributed)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder, *processes):
    for process in processes:
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, output
    with np.load(folder / "results.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def single(tmp_path_factory, images):
    """What one device computes."""
    folder = tmp_path_factory.mktemp("single")
    return finish(folder, start(folder, images, 1))


def assert_agree(result, single):
    # In float32 the gradient itself is exact to some 3e-5 (against float64) only.
    for name, limit, rtol in (
        ("float32_host", 1e-5, 1e-3),
        ("float32_device", 1e-5, 1e-3),
        ("float64_host", 1e-12, 1e-9),
    ):
        expected = single[name.replace("device", "host") + "_gradient"].astype(float)
        error = np.linalg.norm(result[f"{name}_gradient"] - expected)
        assert error <= limit * np.linalg.norm(expected), name
        losses = single[name.replace("device", "host") + "_losses"]
        np.testing.assert_allclose(result[f"{name}_losses"], losses, rtol=rtol)
    end = single["float64_host_end"]
    np.testing.assert_allclose(result["float64_host_end"], end, rtol=0, atol=1e-9)


@pytest.mark.long
def test_eight_devices_agree_with_one(tmp_path, images, single):
    assert_agree(finish(tmp_path, start(tmp_path, images, 8)), single)


@pytest.mark.long
def test_two_processes_agree_with_one_device(tmp_path, images, single):
    address = f"127.0.0.1:{free_port()}"
    both = [start(tmp_path, images, 1, address, 2, number) for number in range(2)]
    assert_agree(finish(tmp_path, *both), single)


class Small(nn.Module):
    """A layer of each kind that the autoencoder has."""

    @nn.compact
    def __call__(self, x):
        y = Conv(16, 2, relu=True)(x)
        latents = nn.Dense(4)(y.reshape(len(x), -1))
        y = nn.Dense(y[0].size)(latents).reshape(y.shape)
        return ConvTranspose(1, 2)(y)


@pytest.fixture
def composed(images):
    """Images, a state before its first step, and the step."""
    images = images[:32, 8:20, 8:20].astype(np.float32) / 255
    optimizer = make_optimizer(OPTIMIZERS["adam"](), lambda step: jnp.float32(0.01))
    params = jax.jit(Small().init)(jax.random.key(0), images[:1])

    def loss(params, batch, step):
        del step
        return ((Small().apply(params, batch) - batch) ** 2).mean(), {}

    return (
        images,
        create_state(params, optimizer),
        make_train_step(loss, optimizer),
    )


@pytest.mark.parametrize(
    "dtype", [pytest.param("float32", marks=pytest.mark.long), "float64"]
)
def test_devices_and_placements_agree(composed, dtype):
    """One device of a single axis, and two, fed from the host or holding the images."""
    images, state, train_step = composed
    rows = epoch_rows(len(images), 8, 0, 0)
    with jax.enable_x64(dtype == "float64"):
        images, state = jax.tree.map(
            lambda x: x.astype(dtype) if x.dtype == np.float32 else x, (images, state)
        )
        alone = jax.jit(jax.vmap(train_step, (None, 0), None, axis_name=AXIS))
        expected, losses = state, []
        for step_rows in rows:
            expected, values = alone(expected, images[step_rows][None])
            losses.append(values["loss"])
        for on_device in (False, True):
            step, batches = make_feed(train_step, images, lambda _: rows, on_device)
            found, found_losses = parallel.replicate(jax.device_get(state)), []
            for _, batch in batches(0, 0):
                found, values = step(found, batch)
                found_losses.append(np.atleast_1d(values["loss"]))
            rtol = 1e-9 if dtype == "float64" else 1e-4
            np.testing.assert_allclose(np.concatenate(found_losses), losses, rtol=rtol)
            if dtype == "float64":  # in float32 Adam magnifies rounding
                jax.tree.map(
                    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9),
                    found.params,
                    expected.params,
                )


def test_an_epoch_on_the_device_makes_no_transfers(composed):
    images, state, train_step = composed
    epoch = make_epoch_step(train_step)
    mapped = parallel.pmapped(epoch, (None, None, 0), None, True)
    rows = parallel.split(epoch_rows(32, 8, 0, 0), axis=1)
    text = mapped.__wrapped__.lower(state, images, rows).compile().as_text()
    for word in ("infeed", "outfeed", "send(", "recv(", "callback"):
        assert word not in text
    assert "while" in text  # it is one loop


def test_the_state_is_donated(composed):
    images, state, train_step = composed
    step, batches = make_feed(train_step, images, lambda _: epoch_rows(32, 8, 0, 0))
    state = parallel.replicate(state)
    kernel = jax.tree.leaves(state.params)[-1]
    with contextlib.closing(batches(0, 0)) as parts:
        step(state, next(parts)[1])
    assert kernel.is_deleted()


def test_split_gives_each_device_its_part():
    batch = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(parallel.split(batch), batch.reshape(2, 3, 2))
    np.testing.assert_array_equal(
        parallel.split(batch.T, axis=1), np.stack([batch.T[:, :3], batch.T[:, 3:]])
    )


def test_every_row_counts_once():
    rows = np.arange(3 * parallel.rows_per_call() // 2 + 1, dtype=np.float32)
    doubled = parallel.map_rows(lambda p, x: {"y": p * x}, jnp.float32(2), rows)
    np.testing.assert_array_equal(doubled["y"], 2 * rows)


def test_pmap_is_there_and_not_deprecated():
    """Once it fails, make `mapping.shard_mapped` the default and say so in README."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            pmap = jax.pmap(lambda x: 2 * x)
            np.testing.assert_array_equal(pmap(np.arange(2)), [0, 2])
        except (AttributeError, Warning) as error:
            pytest.fail(f"JAX {jax.__version__} gives up jax.pmap: {error!r}")


@pytest.mark.parametrize("end", ["gone", "deprecated"])
def test_without_pmap_shard_map_gives_the_same(end, tmp_path, monkeypatch):
    def deprecated(*_, **__):
        warnings.warn("jax.pmap is deprecated", DeprecationWarning, stacklevel=2)

    def train_and_map():
        small = SmallTraining(tmp_path)
        rows = epoch_rows(len(small.examples), 8, 0, 0)
        step, batches = make_feed(small.train_step, small.examples, lambda epoch: rows)
        state = first = parallel.replicate(small.template())
        for _, batch in batches(0, 0):
            state, values = step(state, batch)
        doubled = parallel.map_rows(lambda p, x: {"y": p * x}, 2, np.arange(300))
        return state.params, values, doubled, jax.tree.leaves(first)[1].is_deleted()

    expected = train_and_map()
    if end == "gone":
        monkeypatch.delattr(jax, "pmap")
    else:
        monkeypatch.setattr(jax, "pmap", deprecated)
    jax.tree.map(np.testing.assert_array_equal, train_and_map(), expected)


def test_range_over_devices_sees_all_of_them():
    function = parallel.pmapped(
        lambda scale, x: parallel.range_over_devices(scale * x), (None, 0), None
    )
    assert function(np.float32(1), np.array([[1.0, 2.0], [5.0, 7.0]])) == 6


def test_batch_size_must_fit(monkeypatch):
    parallel.check_batch_size(8, 8)
    for size in (7, 9):
        with pytest.raises(UserError, match=f"--batch_size={size}: must be divisible"):
            parallel.check_batch_size(size, 100)
    with pytest.raises(UserError, match="--batch_size=10: more than the 9"):
        parallel.check_batch_size(10, 9)
    assert jax.device_count() == 2
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    for size, fits in ((128, "126 is, or use 2 of"), (2, "3 is, or use 2 of")):
        with pytest.raises(UserError, match=f"divisible by the 3 devices; {fits}"):
            parallel.check_batch_size(size, 200)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax.config import compose, make_config
from emnist_jax.data import glyphs
from emnist_jax.devices import parallel
from emnist_jax.training.augment import (
    corrupt,
    deform_images,
    image_keys,
    shift_images,
)


def changed(change, images, much, step=3, devices=2, seed=0):
    """What `change` makes of a batch on so many devices, in its order."""
    function = jax.pmap(
        lambda rows: change(rows, much, seed, jnp.int32(step), len(images)),
        axis_name=parallel.AXIS,
        devices=jax.devices()[:devices],
    )
    shares = images.reshape(devices, -1, *images.shape[1:])
    return np.asarray(function(shares)).reshape(images.shape)


@pytest.fixture(scope="module")
def characters():
    return glyphs.draw(np.arange(64) % 47, seed=5).reshape(-1, 28, 28, 1)


def test_every_image_is_one_of_its_shifts(images):
    outputs = changed(shift_images, images, 1)
    seen = set()
    for image, output in zip(images, outputs, strict=True):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        shifts = {
            (i, j): padded[i : i + 28, j : j + 28] for i in range(3) for j in range(3)
        }
        seen |= {at for at, shift in shifts.items() if np.array_equal(shift, output)}
    assert len(seen) == 9 and outputs.dtype == np.uint8


@pytest.mark.parametrize(
    "change,much",
    [(shift_images, 2), pytest.param(deform_images, 0.5, marks=pytest.mark.long)],
)
def test_changes_depend_on_seed_and_step_not_on_devices(images, change, much):
    first = changed(change, images, much)
    np.testing.assert_array_equal(first, changed(change, images, much, devices=1))
    for other in ({"step": 4}, {"seed": 1}):
        assert not np.array_equal(first, changed(change, images, much, **other))


def test_without_the_setting_nothing_changes(images):
    np.testing.assert_array_equal(changed(shift_images, images, 0), images)
    np.testing.assert_array_equal(changed(deform_images, images, 0.0), images)


def box(image):
    rows, columns = np.nonzero(image[..., 0] > 64)
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])


def test_a_deformed_character_fills_its_box(characters):
    outputs = changed(deform_images, characters, 1.0)
    assert outputs.dtype == np.uint8
    kept = []
    for image, output in zip(characters, outputs, strict=True):
        assert not np.array_equal(image, output)
        before, after = box(image), box(output)
        middles = before.reshape(2, 2).sum(1) / 2, after.reshape(2, 2).sum(1) / 2
        sides = (
            np.ptp(before.reshape(2, 2), axis=1),
            np.ptp(after.reshape(2, 2), axis=1),
        )
        kept.append(
            (*np.abs(middles[0] - middles[1]), abs(sides[0].max() - sides[1].max()))
        )
    assert np.mean(kept, axis=0).max() < 0.8 and np.max(kept) <= 2.5
    # As much ink, nearly as sharp.
    assert abs(outputs.mean() / characters.mean() - 1) < 0.1
    steps = [
        np.mean(np.diff(x.astype(float), axis=2) ** 2) for x in (characters, outputs)
    ]
    assert 0.8 < steps[1] / steps[0] < 1.1


def test_so_many_are_deformed_and_blank_images_stay(characters):
    outputs = changed(deform_images, characters, 0.5)
    same = [np.array_equal(*pair) for pair in zip(characters, outputs, strict=True)]
    assert 0.25 < np.mean(same) < 0.75
    blank = np.zeros_like(characters)
    np.testing.assert_array_equal(changed(deform_images, blank, 1.0), blank)


@pytest.mark.parametrize(
    "settings,said",
    [({"shift_pixels": 15}, "--shift_pixels=15"), ({"deform": 1.5}, "--deform=1.5")],
)
def test_bad_setting(settings, said):
    with pytest.raises(ValueError, match=said):
        make_config(**settings)


def keys_of(count, step=3, devices=1):
    """Keys of a batch on so many devices, as data of theirs."""
    rows = count // devices
    function = jax.pmap(
        lambda _: jax.random.key_data(image_keys(0, jnp.int32(step), count, rows)),
        axis_name=parallel.AXIS,
        devices=jax.devices()[:devices],
    )
    data = np.asarray(function(np.zeros(devices))).reshape(count, -1)
    return jax.random.wrap_key_data(data)


def test_noise_is_as_strong_as_it_is_said_to_be():
    grey = jnp.full((64, 28, 28, 1), 0.5)
    noisy = np.asarray(corrupt(grey, keys_of(64), 0.1, 0))
    assert abs(noisy.std() - 0.1) < 0.002 and abs(noisy.mean() - 0.5) < 0.002
    assert not np.array_equal(noisy[0], noisy[1])
    strong = np.asarray(corrupt(grey, keys_of(64), 1.0, 0))
    assert strong.min() == 0 and strong.max() == 1


def test_a_hole_is_a_square_anywhere():
    white = jnp.ones((512, 12, 20, 1))
    holed = np.asarray(corrupt(white, keys_of(512), 0, 5))
    corners = set()
    for image in holed[..., 0]:
        rows, columns = np.nonzero(image == 0)
        assert len(rows) == 25 and np.ptp(rows) == np.ptp(columns) == 4
        corners.add((rows.min(), columns.min()))
    assert len(corners) > 100  # of 8 x 16
    assert {0, 7} <= {row for row, _ in corners}
    assert {0, 15} <= {column for _, column in corners}


def test_keys_depend_on_the_step_not_on_devices():
    one, two = (jax.random.key_data(keys_of(8, devices=d)) for d in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, jax.random.key_data(keys_of(8, step=4)))


@pytest.mark.long
def test_a_mender_is_trained_and_judged_by_whole_images(images):
    config = make_config(noise=0.2, hole=8, shift_pixels=0, batch_size=8)
    model = compose.autoencoder(config)
    state = compose.first_state(config, model, compose.optimizer(config, 1))
    batch, step = images[:8], jnp.int32(0)
    found, _ = jax.pmap(
        compose.loss_of(config, model),
        parallel.AXIS,
        in_axes=(None, 0, None),
        devices=jax.devices()[:1],
    )(state.params, batch[None], step)
    inputs = corrupt(batch / np.float32(255), keys_of(8, step=0), 0.2, 8)
    outputs = model.apply({"params": state.params}, inputs).images
    expected = np.mean((outputs - batch / np.float32(255)) ** 2)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    # Judged by the same damage after every epoch.
    validate = compose.validation(config, model, images)
    losses = [validate(state)[1]["loss"] for _ in range(2)]
    whole = compose.validation(make_config(), model, images)(state)[1]["loss"]
    assert losses[0] == losses[1] != whole

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax.config import make_config
from emnist_jax.devices import parallel
from emnist_jax.training.augment import shift_images


def moved(images, step=3, devices=2, shift_pixels=0, seed=0):
    """What `shift_images` makes of a batch on so many devices, in its order."""
    function = jax.pmap(
        lambda rows: shift_images(
            rows, shift_pixels, seed, jnp.int32(step), len(images)
        ),
        axis_name=parallel.AXIS,
        devices=jax.devices()[:devices],
    )
    shares = images.reshape(devices, -1, *images.shape[1:])
    return np.asarray(function(shares)).reshape(images.shape)


def test_every_image_is_one_of_its_shifts(images):
    outputs = moved(images, shift_pixels=1)
    seen = set()
    for image, output in zip(images, outputs, strict=True):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        shifts = {
            (i, j): padded[i : i + 28, j : j + 28] for i in range(3) for j in range(3)
        }
        seen |= {at for at, shift in shifts.items() if np.array_equal(shift, output)}
    assert len(seen) == 9 and outputs.dtype == np.uint8


def test_moves_depend_on_seed_and_step_not_on_devices(images):
    first = moved(images, shift_pixels=2)
    np.testing.assert_array_equal(first, moved(images, devices=1, shift_pixels=2))
    for change in ({"step": 4}, {"seed": 1}):
        assert not np.array_equal(first, moved(images, shift_pixels=2, **change))


def test_without_the_setting_nothing_moves(images):
    np.testing.assert_array_equal(moved(images, shift_pixels=0), images)


def test_bad_setting():
    with pytest.raises(ValueError, match="--shift_pixels=15"):
        make_config(shift_pixels=15)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from emnist_jax.models import metrics


@pytest.fixture
def pair():
    generator = np.random.default_rng(0)
    images = generator.random((6, 28, 28, 1), np.float32)
    images[0] = 0
    images[1, 5:20, 8:15] = 1
    noise = generator.normal(0, 0.1, images.shape).astype(np.float32)
    return images, np.clip(images + noise, 0, 1)


def test_ssim_is_that_of_scikit_image(pair):
    ours = jax.jit(metrics.ssim)(*pair)
    theirs = [
        structural_similarity(
            a[..., 0].astype(float), b[..., 0].astype(float), win_size=11, data_range=1
        )
        for a, b in zip(*pair, strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_psnr_is_that_of_scikit_image(pair):
    ours = metrics.psnr(metrics.mse(*pair))
    theirs = [
        peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(*pair, strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_mse_is_per_image(pair):
    expected = ((pair[0].astype(float) - pair[1]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(metrics.mse(*pair), expected, rtol=1e-5)


def test_equal_images_are_perfect_and_finite(pair):
    values = metrics.quality(pair[0], pair[0])
    np.testing.assert_allclose(values["ssim"], 1, atol=1e-6)
    np.testing.assert_array_equal(values["psnr"], metrics.PSNR_LIMIT)


def test_psnr_with_a_peak_of_its_own():
    np.testing.assert_allclose(
        metrics.psnr(jnp.array([0.01, 0.0]), jnp.array([0.5, 0.5])),
        [10 * np.log10(0.25 / 0.01), metrics.PSNR_LIMIT],
        rtol=1e-6,
    )


def test_8_bit_values_are_those_of_rounded_images(pair):
    images, reconstructions = pair
    rounded = np.round(reconstructions * 255).astype(np.uint8) / np.float32(255)
    values = metrics.quality(images, reconstructions)
    np.testing.assert_allclose(
        values["mse_8bit"], metrics.mse(images, rounded), rtol=1e-5
    )
    assert (values["mse_8bit"] != values["mse"]).all()


def test_other_shapes_are_refused(pair):
    with pytest.raises(ValueError, match=r"\(5, 28, 28, 1\)"):
        metrics.mse(pair[0], pair[1][:5])
    with pytest.raises(ValueError, match="must both be"):
        metrics.ssim(pair[0][0], pair[1][0])

"""Distortion measures, one value an image: MSE, PSNR and SSIM."""

import jax
import jax.numpy as jnp

# PSNR of a perfect reconstruction is infinite; means over images count it as this.
PSNR_LIMIT = 100.0  # dB, an MSE of 1e-10


def squared_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Squared error of each pixel, `[B, H, W, C]` of two such arrays."""
    _check_shapes(images, reconstructions)
    return (images - reconstructions) ** 2


def absolute_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Absolute error of each pixel, `[B, H, W, C]` of two such arrays."""
    _check_shapes(images, reconstructions)
    return jnp.abs(images - reconstructions)


def mse(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Mean squared error of each image.

    Args:
      images: `[B, H, W, C]` in [0, 1].
      reconstructions: the same shape and range.

    Returns:
      `[B]`.

    Raises:
      ValueError: the shapes differ.
    """
    return jnp.mean(squared_error(images, reconstructions), axis=(1, 2, 3))


def psnr(mse: jax.Array, peak: jax.Array | float = 1.0) -> jax.Array:
    """Peak signal-to-noise ratio in dB, at most `PSNR_LIMIT`.

    Args:
      mse: mean squared errors, any shape.
      peak: the signal's range: 1, or one value an image.
    """
    floor = 10 ** (-PSNR_LIMIT / 10)
    return 10 * jnp.log10(peak**2 / jnp.maximum(mse, peak**2 * floor))


def ssim(images: jax.Array, reconstructions: jax.Array, window: int = 11) -> jax.Array:
    """Structural similarity (Wang et al., 2004) as scikit-image computes it.

    Uniform window, sample covariances, data range 1, mean over the windows that
    lie inside the image; on smaller images the largest odd window that fits.

    Args:
      images: `[B, H, W, 1]` in [0, 1].
      reconstructions: the same shape and range.
      window: side of the window in pixels, odd.

    Returns:
      `[B]`, 1 for equal images.

    Raises:
      ValueError: the shapes differ.
    """
    _check_shapes(images, reconstructions)
    window = min(window, min(images.shape[1:3]) - 1 | 1)

    def window_mean(x: jax.Array) -> jax.Array:
        sums = jax.lax.reduce_window(
            x, 0.0, jax.lax.add, (1, window, window, 1), (1, 1, 1, 1), "VALID"
        )
        return sums / window**2

    # Variances are differences of means of squares: a shift towards 0 keeps digits.
    x, y = images - 0.5, reconstructions - 0.5
    mean_x, mean_y = window_mean(x), window_mean(y)
    unbiased = window**2 / (window**2 - 1)
    variance_x = unbiased * (window_mean(x * x) - mean_x**2)
    variance_y = unbiased * (window_mean(y * y) - mean_y**2)
    covariance = unbiased * (window_mean(x * y) - mean_x * mean_y)
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return similarity.mean(axis=(1, 2, 3))


def quality(images: jax.Array, reconstructions: jax.Array) -> dict[str, jax.Array]:
    """All measures, on float reconstructions and on those rounded to 8 bits.

    Args:
      images: `[B, H, W, 1]` in [0, 1].
      reconstructions: the same shape and range.

    Returns:
      `[B]` each: mse, psnr, ssim, and mse_8bit, psnr_8bit, ssim_8bit.
    """
    rounded = jnp.round(reconstructions * 255) / 255
    values = {}
    for suffix, candidate in (("", reconstructions), ("_8bit", rounded)):
        error = mse(images, candidate)
        values[f"mse{suffix}"] = error
        values[f"psnr{suffix}"] = psnr(error)
        values[f"ssim{suffix}"] = ssim(images, candidate)
    return values


def _check_shapes(images: jax.Array, reconstructions: jax.Array) -> None:
    if images.shape != reconstructions.shape or images.ndim != 4:
        raise ValueError(
            f"images {images.shape} and reconstructions {reconstructions.shape} must "
            "both be [B, H, W, C]"
        )

"""Principal components of images: the linear baseline of the studies."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Components:
    """Mean image and principal directions, strongest first."""

    mean: np.ndarray  # float32 [784]
    directions: np.ndarray  # float32 [K, 784], orthonormal

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Coordinates float32 [N, K] of images [N, 28, 28, 1], uint8 or in [0, 1]."""
        return (_flat(images) - self.mean[None]) @ self.directions.T

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Images float32 [N, 28, 28, 1], clipped to [0, 1], of coordinates [N, K]."""
        flat = latents @ self.directions[: latents.shape[1]] + self.mean[None]
        return np.clip(flat, 0, 1).reshape(-1, 28, 28, 1)


def fit(images: np.ndarray, count: int) -> Components:
    """The first components of images.

    Args:
      images: `[N, 28, 28, 1]`, uint8 or floats in [0, 1].
      count: how many, 1 to 784.
    """
    mean = np.zeros(784)
    moment = np.zeros((784, 784))
    for start in range(0, len(images), 8192):  # float64 of all images is 700 MB
        rows = _flat(images[start : start + 8192]).astype(np.float64)
        mean += rows.sum(axis=0)
        moment += rows.T @ rows
    mean /= len(images)
    covariance = moment / len(images) - np.outer(mean, mean)
    _, vectors = np.linalg.eigh(covariance)
    directions = vectors[:, ::-1][:, :count].T
    # Signs are arbitrary: the largest entry of each direction becomes positive.
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(count), largest])
    return Components(
        mean.astype(np.float32), (directions * signs[:, None]).astype(np.float32)
    )


def _flat(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return flat / 255 if images.dtype == np.uint8 else flat

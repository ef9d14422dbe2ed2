"""Data sets as upright uint8 arrays."""

from emnist_jax.data.datasets import load
from emnist_jax.data.images import Images, read_images
from emnist_jax.data.splits import Dataset, Split, hold_out, take

__all__ = ["Dataset", "Images", "Split", "hold_out", "load", "read_images", "take"]

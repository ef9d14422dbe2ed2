"""Data sets as upright uint8 arrays."""

from emnist_jax.data.datasets import load
from emnist_jax.data.splits import Dataset, Split, hold_out, take

__all__ = ["Dataset", "Split", "hold_out", "load", "take"]

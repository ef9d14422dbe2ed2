"""Glyphs."""

from emnist_jax.data.splits import Dataset


def load() -> Dataset:
    """Loads glyphs."""
    raise NotImplementedError

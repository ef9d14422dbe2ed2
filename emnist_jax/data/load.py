"""Data sets by name."""

from emnist_jax.data.splits import Dataset
from emnist_jax.errors import UserError


def load(
    name: str, *, data_dir: str | None = None, emnist_archive: str | None = None
) -> Dataset:
    """Loads a data set."""
    raise UserError(f"--dataset={name} is unknown")

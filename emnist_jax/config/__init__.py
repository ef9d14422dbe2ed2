"""Settings of a run, and what is composed of them."""

from emnist_jax.config.build import (
    OPERATIONAL,
    make_config,
    shaping_differences,
    stored_config,
)
from emnist_jax.config.data_settings import DATASETS
from emnist_jax.config.presets import PRESETS
from emnist_jax.config.settings import Config

__all__ = [
    "DATASETS",
    "OPERATIONAL",
    "PRESETS",
    "Config",
    "make_config",
    "shaping_differences",
    "stored_config",
]

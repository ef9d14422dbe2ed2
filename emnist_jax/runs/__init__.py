"""Run folders, the trained models in them, and weights from elsewhere."""

from emnist_jax.runs.folder import WRITTEN, expect_shared, open_for_training, save_model
from emnist_jax.runs.run import Run, load_pretrained, load_run

__all__ = [
    "WRITTEN",
    "Run",
    "expect_shared",
    "load_pretrained",
    "load_run",
    "open_for_training",
    "save_model",
]

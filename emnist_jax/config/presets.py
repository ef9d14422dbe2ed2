"""Presets: what differs from the defaults, which are those of 'best'."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "robust": {"optimizer": "adam", "learning_rate": 3e-3, "shift_pixels": 0},
    "published": {
        "shift_pixels": 0,
        "latent_activation": "relu",
        "output_bias": "zero",
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "optimizer": "keras_adam",
        "schedule": "plateau",
        "early_stopping_patience": 5,
    },
}

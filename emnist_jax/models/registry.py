"""Decoders and losses by name: the one list that flags, checkpoints and tables use.

Nothing heavy is imported here, so that `launch.py --help` is quick. A decoder of one's
own is a class in `decoders.py` and a line here, a loss a function in `metrics.py` and
a line here.
"""

from typing import Any

# Height and width of EMNIST's images, and of runs that do not say theirs.
IMAGE_SIZE = (28, 28)

# Name -> (class in decoders.py, its attributes).
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "model01": ("Decoder", {"upsampling_layer": 3}),
    "model02": ("Decoder", {"upsampling_layer": 4}),
    "model03": ("Decoder", {"upsampling_layer": 2}),
    "model04": ("Decoder", {"upsampling_layer": 1}),
}

# Name -> function in metrics.py of (images, reconstructions) [B, H, W, C] to values
# [B, ...]; the loss is their mean.
LOSSES: dict[str, str] = {"mse": "squared_error", "mae": "absolute_error"}

"""A pixel model in integers: its sizes, limits and tables."""

import dataclasses

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import context
from emnist_jax.codec.values import BINS, WIDEST

UNIT = 64  # activations and logits are integers / 64
BIAS_UNIT = 1024  # biases are 16-bit integers / 1024
MIN_SHIFT, MAX_SHIFT = 4, 12  # weights are integers / 2**shift
EXACT = 1 << 24  # float32 holds every integer up to here
PEAK = 1 << 14  # table value of the likeliest symbol
# exp(-d / 64) for logits d/64 below the highest, as integers.
EXPONENTIAL = np.floor(PEAK * np.exp(-np.arange(11 * UNIT) / UNIT) + 0.5).astype(
    np.int32
)
# k log2(k) in 1/16 for k/4096: the higher the sum over all spans, the fewer bits.
ORDER = np.floor(
    16 * np.arange(4097) * np.log2(np.maximum(np.arange(4097), 1)) + 0.5
).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class PixelModelConfig:
    """Sizes of the pixel model.

    Attributes:
      width: units in each hidden layer of the main network, 512 at most.
      blocks: its residual layers after the first.
      fine_width: hidden units of the step from bin to value.
      gate_width: hidden units of the gate.
      height: rows for which the model holds a position bias.
      columns: columns, likewise.
    """

    width: int = 384
    blocks: int = 2
    fine_width: int = 128
    gate_width: int = 64
    height: int = 28
    columns: int = 28

    def multiply_adds(self) -> tuple[int, int]:
        """Multiply-adds of one hard and of one easy pixel."""
        main = context.INPUTS * self.width + self.blocks * self.width**2
        main += self.width * (BINS + self.fine_width) + self.fine_width * WIDEST
        gate = context.INPUTS * self.gate_width + self.gate_width**2
        return main, gate + 2 * self.gate_width


def layer_shapes(config: PixelModelConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer, in the order of the model file."""
    width, gate = config.width, config.gate_width
    return {
        "gate_first": (context.INPUTS, gate),
        "gate_block0": (gate, gate),
        "gate_head": (gate, 2),
        "first": (context.INPUTS, width),
        **{f"block{index}": (width, width) for index in range(config.blocks)},
        "coarse": (width, BINS),
        "fine_hidden": (width, config.fine_width),
        "fine": (config.fine_width, WIDEST),
    }


def table_shapes(config: PixelModelConfig) -> dict[str, tuple[int, int]]:
    """Rows and columns of each table of biases, in the order of the model file."""
    return {
        "gate_row": (config.height, config.gate_width),
        "gate_column": (config.columns, config.gate_width),
        "row": (config.height, config.width),
        "column": (config.columns, config.width),
        "fine_bin": (BINS, config.fine_width),
        "fine_place": (BINS, WIDEST),
    }


TABLES_OF = {
    "gate_first": ("gate_row", "gate_column"),
    "first": ("row", "column"),
    "fine_hidden": ("fine_bin",),
    "fine": ("fine_place",),
}


def check_exact(arrays: dict[str, np.ndarray], config: PixelModelConfig) -> None:
    """Checks that no sum of a model leaves the range that float32 holds exactly.

    Raises:
      UserError: one could.
    """
    for name in layer_shapes(config):
        scale = 1 << (arrays[f"{name}.shift"].astype(np.int64) - 4)
        weight = np.abs(arrays[f"{name}.weight"].astype(np.int64)).sum(axis=0)
        bias = np.abs(arrays[f"{name}.bias"].astype(np.int64))
        for table in TABLES_OF.get(name, ()):
            bias += np.abs(arrays[table].astype(np.int64)).max(axis=0)
        if (255 * weight + (bias + 8) * scale >= EXACT).any():
            raise UserError(
                "the pixel model's sums can exceed 2**24: its weights are too big"
            )


def scaled(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """A layer's biases at the scale of its sums.

    Args:
      arrays: of the model.
      name: of the layer.

    Returns:
      int64 [outputs] for the layer, with what makes shifts round to the nearest, and
      [rows, outputs] for each of its tables, by name.
    """
    shift = arrays[f"{name}.shift"].astype(np.int64)
    scale = 1 << (shift - 4)  # biases are in 1/16 of the unit of activations
    tables = {table: arrays[table] * scale for table in TABLES_OF.get(name, ())}
    return {name: arrays[f"{name}.bias"] * scale + (1 << (shift - 1)), **tables}

"""A pixel model in integers: its sizes, and parameters as its file has them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import context
from emnist_jax.codec.values import BINS, WIDEST

UNIT = 64  # activations and logits are integers / 64
BIAS_UNIT = 1024  # biases are 16-bit integers / 1024
MIN_SHIFT, MAX_SHIFT = 4, 12  # weights are integers / 2**shift
EXACT = 1 << 24  # float32 holds every integer up to here


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


_TABLES_OF = {
    "gate_first": ("gate_row", "gate_column"),
    "first": ("row", "column"),
    "fine_hidden": ("fine_bin",),
    "fine": ("fine_place",),
}


def weight_shift(kernel: jax.Array) -> jax.Array:
    """The power of two that makes each column of `kernel` fit 8 bits, [out]."""
    largest = jnp.max(jnp.abs(kernel), axis=0)
    shift = jnp.floor(jnp.log2(127 / jnp.maximum(largest, 1e-9)))
    return jnp.clip(shift, MIN_SHIFT, MAX_SHIFT)


def _part(params: dict, name: str) -> dict:
    """The parameters that `name` of the model file stands for."""
    if name in ("first", "row", "column") or name.startswith("block"):
        return params["trunk"][name]
    inner = name.removeprefix("gate_")
    if inner != name and inner != "head":
        return params["gate_trunk"][inner]
    return params[name]


def quantise(config: PixelModelConfig, params: dict) -> dict[str, np.ndarray]:
    """Rounds trained parameters to the integers of the model file.

    Args:
      config: the model's sizes.
      params: parameters of `PixelModel`.

    Returns:
      For each layer `NAME.weight` int8 [in, out], `NAME.shift` uint8 [out] and
      `NAME.bias` int16 [out]; for each table `NAME` int16 [rows, out].
    """

    def bias(value) -> np.ndarray:
        rounded = np.floor(np.asarray(value, np.float64) * BIAS_UNIT + 0.5)
        return np.clip(rounded, -32767, 32767).astype(np.int16)

    arrays = {}
    for name, shape in layer_shapes(config).items():
        layer = _part(params, name)
        shift = np.asarray(weight_shift(jnp.asarray(layer["kernel"])))
        weight = np.asarray(layer["kernel"], np.float64) * 2.0**shift
        arrays[f"{name}.weight"] = np.clip(np.floor(weight + 0.5), -127, 127).astype(
            "i1"
        )
        arrays[f"{name}.shift"] = shift.astype(np.uint8)
        arrays[f"{name}.bias"] = bias(layer.get("bias", np.zeros(shape[1])))
    for name in table_shapes(config):
        arrays[name] = bias(_part(params, name)["table"])
    return arrays


def dequantise(arrays: dict[str, np.ndarray], params: dict) -> dict:
    """Puts the values of a model file into parameters, to train on from there.

    Args:
      arrays: as from `quantise`.
      params: parameters of a `PixelModel` of that size.

    Returns:
      New parameters of the same structure.
    """
    params = jax.tree.map(np.asarray, params)
    for name, values in arrays.items():
        if name.endswith(".weight"):
            name = name.removesuffix(".weight")
            scale = 2.0 ** -arrays[f"{name}.shift"].astype(np.float32)
            layer = _part(params, name)
            layer["kernel"] = values * scale
            if "bias" in layer:
                layer["bias"] = arrays[f"{name}.bias"] / np.float32(BIAS_UNIT)
        elif "." not in name:
            _part(params, name)["table"] = values / np.float32(BIAS_UNIT)
    return jax.tree.map(jnp.asarray, params)


def check_exact(arrays: dict[str, np.ndarray], config: PixelModelConfig) -> None:
    """Checks that no sum of a model leaves the range that float32 holds exactly.

    Raises:
      UserError: one could.
    """
    for name in layer_shapes(config):
        scale = 1 << (arrays[f"{name}.shift"].astype(np.int64) - 4)
        weight = np.abs(arrays[f"{name}.weight"].astype(np.int64)).sum(axis=0)
        bias = np.abs(arrays[f"{name}.bias"].astype(np.int64))
        for table in _TABLES_OF.get(name, ()):
            bias += np.abs(arrays[table].astype(np.int64)).max(axis=0)
        if (255 * weight + (bias + 8) * scale >= EXACT).any():
            raise UserError(
                "the pixel model's sums can exceed 2**24: its weights are too big"
            )


def operands_of(arrays: dict[str, np.ndarray], config: PixelModelConfig) -> dict:
    """Float32 operands: biases brought to the scale of each output's sum."""
    operands = {}
    for name in layer_shapes(config):
        weight = arrays[f"{name}.weight"].astype(np.int64)
        shift = arrays[f"{name}.shift"].astype(np.int64)
        scale = 1 << (shift - 4)  # biases are in 1/16 of the unit of activations
        bias = arrays[f"{name}.bias"] * scale + (1 << (shift - 1))  # floor rounds
        for table in _TABLES_OF.get(name, ()):
            operands[table] = jnp.asarray(arrays[table] * scale, jnp.float32)
        operands[name] = (
            jnp.asarray(weight, jnp.float32),
            jnp.asarray(bias, jnp.float32),
            jnp.asarray(2.0**-shift, jnp.float32),
        )
    return operands

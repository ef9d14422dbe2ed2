"""From trained parameters to a pixel model in integers, and back."""

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.codec.integer_form import (
    BIAS_UNIT,
    MAX_SHIFT,
    MIN_SHIFT,
    PixelModelConfig,
    layer_shapes,
    table_shapes,
)


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

    A larger model gives the same distributions at first: its further units see all
    others, but nothing sees them until it is trained, and its further blocks pass on
    what they get (Net2Net, Chen et al. 2016).

    Args:
      arrays: as from `quantise`.
      params: fresh parameters of a `PixelModel` of that size, or of a larger one.

    Returns:
      New parameters of the same structure.
    """
    params = jax.tree.map(np.array, params)
    for name, block in params["trunk"].items():
        if name.startswith("block") and f"{name}.weight" not in arrays:
            for value in block.values():
                value[:] = 0
    for name, values in arrays.items():
        if name.endswith(".weight"):
            name = name.removesuffix(".weight")
            scale = 2.0 ** -arrays[f"{name}.shift"].astype(np.float32)
            layer, (inputs, outputs) = _part(params, name), values.shape
            layer["kernel"][:, :outputs] = 0
            layer["kernel"][:inputs, :outputs] = values * scale
            if "bias" in layer:
                bias = arrays[f"{name}.bias"] / np.float32(BIAS_UNIT)
                layer["bias"][:outputs] = bias
        elif "." not in name:
            rows, outputs = values.shape
            table = _part(params, name)["table"]
            table[:rows, :outputs] = values / np.float32(BIAS_UNIT)
    return jax.tree.map(jnp.asarray, params)

"""Brings a pixel model's integers into the order in which programs read them."""

import numpy as np

from emnist_jax.codec.integer_form import PixelModelConfig, layer_shapes, scaled
from emnist_jax.codec.native.dots import OUTPUTS
from emnist_jax.codec.native.layers import LAYERS, TABLES


def pack(arrays: dict, config: PixelModelConfig, group: int) -> dict[str, np.ndarray]:
    """The arrays of a job that hold a model.

    Args:
      arrays: the model's.
      config: its sizes.
      group: activations in a 32-bit group, 4 or 2.

    Returns:
      `layers`, `tables`, `weights`, `biases` and `shifts`; see `job.KINDS`. Layers have
      outputs that are always 0 where their number is no multiple of `OUTPUTS`.
    """
    shapes, found = layer_shapes(config), {}
    for name in shapes:
        found |= scaled(arrays, name)
    layers, weights, biases, shifts = [], [], [], []
    for name in (*LAYERS, *(f"block{index}" for index in range(config.blocks))):
        inputs, outputs = (up(side) for side in shapes[name])
        layers.append([inputs // group, outputs, _size(weights), _size(biases)])
        weights.append(_strips(arrays[f"{name}.weight"], inputs, outputs, group))
        biases.append(_widened(found[name], outputs))
        shifts.append(_widened(arrays[f"{name}.shift"], outputs))
    tables = []
    for name in TABLES:
        table = _widened(found[name], up(found[name].shape[1]))
        tables.append([_size(biases), table.shape[1], len(table)])
        biases.append(table.reshape(-1))
    flat = {"weights": weights, "biases": biases, "shifts": shifts}
    return {
        "layers": np.array(layers, np.int64),
        "tables": np.array(tables, np.int64),
        **{name: np.concatenate(a).astype(np.int32) for name, a in flat.items()},
    }


def up(number: int) -> int:
    """The next multiple of `OUTPUTS`."""
    return -(-number // OUTPUTS) * OUTPUTS


def _size(parts: list[np.ndarray]) -> int:
    return sum(map(len, parts))


def _widened(values: np.ndarray, last: int) -> np.ndarray:
    """Zeros added to the last axis."""
    missing = [(0, 0)] * (values.ndim - 1) + [(0, last - values.shape[-1])]
    return np.pad(values, missing)


def _strips(weight: np.ndarray, inputs: int, outputs: int, group: int) -> np.ndarray:
    """int8 [in, out] to 32-bit groups [out / OUTPUTS, in / group, OUTPUTS]."""
    whole = np.zeros((inputs, outputs), np.int8 if group == 4 else np.int16)
    whole[: weight.shape[0], : weight.shape[1]] = weight
    cut = whole.reshape(inputs // group, group, outputs // OUTPUTS, OUTPUTS)
    return np.ascontiguousarray(cut.transpose(2, 0, 3, 1)).view(np.int32).reshape(-1)

"""Layers, shapes, parameters and multiply-adds, read off the modules themselves."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from emnist_jax.models.layers import ConvTranspose


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of the chain from image to reconstruction."""

    part: str  # 'encoder' or 'decoder'
    name: str  # as in the parameter tree
    kind: str
    output_shape: tuple[int, ...]  # of one image
    parameters: int
    multiply_adds: int  # of one image, forward


def layer_table(model: nn.Module) -> list[Layer]:
    """The layers of a model in the order in which they run.

    Args:
      model: an autoencoder; nothing is computed.

    Returns:
      One row a layer that has a kernel; activations, which multiply nothing, are
      not listed.
    """
    rows: list[Layer] = []

    def note(call, arguments, options, context):
        output, module = call(*arguments, **options), context.module
        params = module.variables.get("params", {})
        called = context.method_name == "__call__"
        if called and hasattr(params.get("kernel"), "shape"):
            rows.append(_layer(module, params, arguments[0].shape, output.shape))
        return output

    def run(key):
        with nn.intercept_methods(note):
            return model.init(key, jnp.zeros((1, *model.image_size, 1)))

    jax.eval_shape(run, jax.random.key(0))
    return rows


def _layer(module: nn.Module, params: Any, inputs: tuple, outputs: tuple) -> Layer:
    kernel = params["kernel"].shape
    # Every tap meets every input position of a transposed convolution, and every
    # output position of a plain one.
    transposed = isinstance(module, ConvTranspose | nn.ConvTranspose)
    positions = math.prod((inputs if transposed else outputs)[1:-1])
    kind = type(module).__name__.replace("Transpose", "T")
    if len(kernel) > 2:
        kind += f" {kernel[0]}x{kernel[1]}"
    strides = getattr(module, "strides", 1)
    if isinstance(strides, int) and strides > 1:
        kind += f" stride {strides}"
    part, *name = module.path
    return Layer(
        part,
        "/".join(name),
        kind,
        outputs[1:],
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        math.prod(kernel) * positions,
    )


def total(rows: list[Layer], field: str, part: str | None = None) -> int:
    """Sum of 'parameters' or 'multiply_adds' over all layers or those of one part."""
    return sum(getattr(row, field) for row in rows if part in (None, row.part))


def describe(rows: list[Layer]) -> dict[str, Any]:
    """The table as JSON-able facts: the 'model' part of the results."""
    parts = {"encoder": "encoder", "decoder": "decoder", "total": None}
    return {
        field: {name: total(rows, field, part) for name, part in parts.items()}
        for field in ("parameters", "multiply_adds")
    } | {"layers": [dataclasses.asdict(row) for row in rows]}


def format_table(rows: list[Layer]) -> str:
    """The table as text, with totals of both parts."""
    lines = [
        f"{'layer':<24}{'kind':<19}{'output':<11}{'parameters':>12}{'M mult-adds':>12}"
    ]
    for row in rows:
        name = f"{row.part}/{row.name}"
        shape = "x".join(map(str, row.output_shape))
        lines.append(
            f"{name:<24}{row.kind:<19}{shape:<11}{row.parameters:>12,}"
            f"{row.multiply_adds / 1e6:>12.2f}"
        )
    for part in ("encoder", "decoder", None):
        lines.append(
            f"{part or 'total':<54}{total(rows, 'parameters', part):>12,}"
            f"{total(rows, 'multiply_adds', part) / 1e6:>12.2f}"
        )
    return "\n".join(lines)

"""Layers, shapes, parameters and multiply-adds, counted from the architecture."""

import dataclasses
from typing import Any

from emnist_jax.models import decoders, encoder


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of the chain from image to reconstruction."""

    part: str  # 'encoder' or 'decoder'
    name: str  # as in the parameter tree
    kind: str
    output_shape: tuple[int, ...]  # of one image
    parameters: int
    multiply_adds: int  # of one image, forward


def layer_table(decoder_name: str, latent_dim: int = 32) -> list[Layer]:
    """The layers of a model in the order in which they run.

    Args:
      decoder_name: 'model01' to 'model04'.
      latent_dim: length of the latent vector.

    Returns:
      One row a layer; activations, which multiply nothing, are not listed.
    """
    rows = []
    size, channels = 28, 1

    def conv(part, name, features, stride, transposed=False):
        nonlocal size, channels
        kernel = 9 * channels * features
        # Every tap meets every input position of a transposed convolution, and
        # every output position of a plain one.
        positions = size**2 if transposed else (size // stride) ** 2
        size = size * stride if transposed else size // stride
        kind = f"{'ConvT' if transposed else 'Conv'} 3x3" + (
            f" stride {stride}" if stride > 1 else ""
        )
        shape = (size, size, features)
        rows.append(
            Layer(part, name, kind, shape, kernel + features, kernel * positions)
        )
        channels = features

    def dense(part, name, inputs, features):
        kernel = inputs * features
        rows.append(Layer(part, name, "Dense", (features,), kernel + features, kernel))

    for number, (features, stride) in enumerate(encoder.LAYERS, start=1):
        conv("encoder", f"conv{number}", features, stride)
    dense("encoder", "latent", size**2 * channels, latent_dim)
    dense("decoder", "dense", latent_dim, size**2 * channels)
    for number, features in enumerate(decoders.FEATURES, start=1):
        stride = 2 if number == decoders.DECODERS[decoder_name] else 1
        conv("decoder", f"conv_transpose{number}", features, stride, transposed=True)
    conv("decoder", "output", 1, 1, transposed=True)
    return rows


def total(rows: list[Layer], field: str, part: str | None = None) -> int:
    """Sum of 'parameters' or 'multiply_adds' over all layers or those of one part."""
    return sum(getattr(row, field) for row in rows if part in (None, row.part))


def describe(decoder_name: str, latent_dim: int) -> dict[str, Any]:
    """The table as JSON-able facts: the 'model' part of the results."""
    rows = layer_table(decoder_name, latent_dim)
    parts = {"encoder": "encoder", "decoder": "decoder", "total": None}
    return {
        field: {name: total(rows, field, part) for name, part in parts.items()}
        for field in ("parameters", "multiply_adds")
    } | {"layers": [dataclasses.asdict(row) for row in rows]}


def format_table(rows: list[Layer]) -> str:
    """The table as text, with totals of both parts."""
    lines = [
        f"{'layer':<24}{'kind':<20}{'output':<14}{'parameters':>12}{'M mult-adds':>13}"
    ]
    for row in rows:
        name = f"{row.part}/{row.name}"
        shape = "x".join(map(str, row.output_shape))
        lines.append(
            f"{name:<24}{row.kind:<20}{shape:<14}{row.parameters:>12,}"
            f"{row.multiply_adds / 1e6:>13.2f}"
        )
    for part in ("encoder", "decoder", None):
        lines.append(
            f"{part or 'total':<58}{total(rows, 'parameters', part):>12,}"
            f"{total(rows, 'multiply_adds', part) / 1e6:>13.2f}"
        )
    return "\n".join(lines)

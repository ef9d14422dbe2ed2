"""Winograd's transforms of F(2x2, 3x3): of weights by XLA, of pixels in kernels.

Each transforms both axes of a 3x3 kernel, a 4x4 or 2x2 patch or a 4x4 domain.
"""

import jax
import jax.numpy as jnp
from llvmlite import ir

from emnist_jax.cpu.emitter import Emitter

Grid = list[list[ir.Value]]  # vectors over channels


def kernel_to_domain(kernel: jax.Array) -> jax.Array:
    """G w G': `[3, 3, ...]` to `[4, 4, ...]`; XLA's einsum takes 20 times as long."""

    def axis(w):
        ends, middle = (w[0] + w[2]) / 2, w[1] / 2
        return jnp.stack([w[0], ends + middle, ends - middle, w[2]])

    return _leading_axes(axis, kernel)


def domain_to_kernel(domain: jax.Array) -> jax.Array:
    """G' d G: `[4, 4, ...]` to `[3, 3, ...]`."""

    def axis(d):
        middle = (d[1] + d[2]) / 2
        return jnp.stack([d[0] + middle, (d[1] - d[2]) / 2, middle + d[3]])

    return _leading_axes(axis, domain)


def input_to_domain(e: Emitter, grid: Grid) -> Grid:
    """B' d B: 4x4 to 4x4."""
    add, subtract = e.builder.fadd, e.builder.fsub

    def axis(d):
        return [
            subtract(d[0], d[2]),
            add(d[1], d[2]),
            subtract(d[2], d[1]),
            subtract(d[1], d[3]),
        ]

    return _grid_axes(axis, grid)


def domain_to_output(e: Emitter, grid: Grid) -> Grid:
    """A' m A: 4x4 to 2x2."""
    add, subtract = e.builder.fadd, e.builder.fsub

    def axis(m):
        return [add(add(m[0], m[1]), m[2]), subtract(subtract(m[1], m[2]), m[3])]

    return _grid_axes(axis, grid)


def gradient_to_domain(e: Emitter, grid: Grid) -> Grid:
    """A g A': 2x2 to 4x4."""
    add, subtract = e.builder.fadd, e.builder.fsub

    def axis(g):
        return [g[0], add(g[0], g[1]), subtract(g[0], g[1]), e.builder.fneg(g[1])]

    return _grid_axes(axis, grid)


def _leading_axes(axis, x: jax.Array) -> jax.Array:
    x = axis(x)
    return jnp.moveaxis(axis(jnp.moveaxis(x, 1, 0)), 0, 1)


def _grid_axes(axis, grid: Grid) -> Grid:
    rows = [axis(row) for row in grid]
    columns = [axis(list(column)) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]

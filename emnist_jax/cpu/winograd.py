"""3x3 convolutions of stride 1 after Winograd: 16 products instead of 36.

F(2x2, 3x3) of Lavin and Gray (2015). An output tile of 2x2 pixels comes from an
input patch d of 4x4; with w the 3x3 kernel it is A' [(G w G') * (B' d B)] A, where
* multiplies element by element for one channel and is 16 matrix products for many.
Strips of about 28 tiles are transformed, multiplied and transformed back while they
are in the cache. The gradient of w goes the same way backwards.
"""

import jax
import numpy as np
from llvmlite import ir

from emnist_jax.cpu import runtime, transforms
from emnist_jax.cpu.emitter import Emitter, Index, int64, matrix_product

_STRIP = 28  # tiles: two blocks of rows with AVX-512, and all buffers fit a 1 MB cache


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    relu: bool = False,
    mask: jax.Array | None = None,
) -> jax.Array:
    """3x3 SAME convolution.

    Args:
      x: `[B, H, W, in]`; channels are multiples of the vector length everywhere.
      kernel: `[3, 3, in, out]`.
      bias: `[out]`, added to the output.
      relu: whether negative outputs become 0.
      mask: `[B, H, W, in]`; x counts as 0 where it is not above 0.

    Returns:
      `[B, H, W, out]`.
    """
    batch, height, width, inputs = x.shape
    outputs = kernel.shape[-1]
    shape = (height, width, inputs, outputs)
    domain = transforms.kernel_to_domain(kernel)
    target = runtime.compile_kernel(
        winograd, *shape, bias is not None, relu, mask is not None
    )
    tiles = _strip_rows(height, width) * -(-width // 2)
    scratch = (runtime.workers(), 16 * tiles * (inputs + outputs) + outputs)
    optional = [v for v in (mask, bias) if v is not None]
    results = ((batch, height, width, outputs), scratch)
    return runtime.call(target, results, x, domain, *optional)[0]


def kernel_gradient(
    x: jax.Array, gradient: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Gradients of the kernel and the bias of `convolve`.

    Args:
      x: `[B, H, W, in]`.
      gradient: of the output, `[B, H, W, out]`.
      mask: `[B, H, W, out]`; the gradient counts as 0 where it is not above 0.

    Returns:
      `[3, 3, in, out]` and `[out]`.
    """
    _, height, width, inputs = x.shape
    outputs = gradient.shape[-1]
    shape = (height, width, inputs, outputs)
    target = runtime.compile_kernel(winograd_gradient, *shape, mask is not None)
    tiles = _strip_rows(height, width) * -(-width // 2)
    workers = runtime.workers()
    results = (
        (workers, 4, 4, inputs, outputs),
        (workers, outputs),
        (workers, 16 * tiles * (inputs + outputs)),
    )
    optional = [] if mask is None else [mask]
    domain, bias, _ = runtime.call(target, results, x, gradient, *optional)
    return transforms.domain_to_kernel(domain.sum(0)), bias.sum(0)


def winograd(height, width, inputs, outputs, has_bias, relu, has_mask):
    """Kernel: (x, domain kernel, mask?, bias?) -> (output, scratch)."""
    columns = -(-width // 2)
    tiles = _strip_rows(height, width) * columns

    def body(e: Emitter, buffers, image, slot, batch):
        buffers = list(buffers)
        x, domain_kernel = buffers.pop(0), buffers.pop(0)
        sources = [x] + ([buffers.pop(0)] if has_mask else [])
        bias = buffers.pop(0) if has_bias else None
        output, scratch = buffers
        sources = [e.at(s, e.multiply(image, height * width * inputs)) for s in sources]
        output = e.at(output, e.multiply(image, height * width * outputs))
        size = 16 * tiles * (inputs + outputs) + outputs
        domain = e.at(scratch, e.multiply(slot, size))
        product = e.at(domain, 16 * tiles * inputs)
        nothing = runtime.zeros(e, inputs)  # is read for pixels past the edge,
        nowhere = e.at(product, 16 * tiles * outputs)  # and written

        def strip(first: Index, rows: int):
            with e.loop(rows) as row, e.loop(columns) as column:
                y, x = e.multiply(e.add(first, row), 2), e.multiply(column, 2)
                tile = e.add(e.multiply(row, columns), column)
                target = e.at(domain, e.multiply(tile, inputs))
                corner = e.add(y, -1), e.add(x, -1)
                shape = height, width, inputs
                _input_to_domain(
                    e, sources, corner, shape, nothing, target, tiles * inputs
                )
            with e.loop(16) as i:
                matrix_product(
                    e,
                    e.at(domain, e.multiply(i, tiles * inputs)),
                    e.at(domain_kernel, e.multiply(i, inputs * outputs)),
                    e.at(product, e.multiply(i, tiles * outputs)),
                    rows=rows * columns,
                    columns=outputs,
                    depth=inputs,
                    a_row=inputs,
                    a_depth=1,
                    b_depth=outputs,
                    c_row=outputs,
                )
            with e.loop(rows) as row, e.loop(columns) as column:
                y, x = e.multiply(e.add(first, row), 2), e.multiply(column, 2)
                tile = e.add(e.multiply(row, columns), column)
                source = e.at(product, e.multiply(tile, outputs))
                shape = height, width, outputs
                pixels = _patch(e, [output], (y, x), 2, shape, nowhere)
                with e.loop(outputs, e.lanes) as channel:
                    m = _load_grid(e, source, channel, tiles * outputs)
                    value = transforms.domain_to_output(e, m)
                    for i, j in np.ndindex(2, 2):
                        v = value[i][j]
                        if has_bias:
                            v = e.builder.fadd(v, e.load(bias, channel))
                        e.store(e.relu(v) if relu else v, pixels[i][j][0], channel)

        _for_strips(e, height, width, strip)

    return body, 2 + has_mask + has_bias, 2, None


def winograd_gradient(height, width, inputs, outputs, has_mask):
    """Kernel: (x, gradient, mask?) -> (sums per worker, bias sums, scratch)."""
    columns = -(-width // 2)
    tiles = _strip_rows(height, width) * columns
    workers = runtime.workers()

    def body(e: Emitter, buffers, worker, slot, batch):
        x, *gradients, total, bias, scratch = buffers
        total = e.at(total, e.multiply(worker, 16 * inputs * outputs))
        bias = e.at(bias, e.multiply(worker, outputs))
        domain = e.at(scratch, e.multiply(worker, 16 * tiles * (inputs + outputs)))
        gradient_domain = e.at(domain, 16 * tiles * inputs)
        nothing = runtime.zeros(e, max(inputs, outputs))
        e.fill_zero(total, 16 * inputs * outputs)
        e.fill_zero(bias, outputs)

        def image(n: ir.Value):
            source = e.at(x, e.multiply(n, height * width * inputs))
            offset = e.multiply(n, height * width * outputs)
            gradient = [e.at(g, offset) for g in gradients]

            def strip(first: Index, rows: int):
                with e.loop(rows) as row, e.loop(columns) as column:
                    y, x = e.multiply(e.add(first, row), 2), e.multiply(column, 2)
                    tile = e.add(e.multiply(row, columns), column)
                    target = e.at(domain, e.multiply(tile, inputs))
                    corner = e.add(y, -1), e.add(x, -1)
                    shape = height, width, inputs
                    _input_to_domain(
                        e, [source], corner, shape, nothing, target, tiles * inputs
                    )
                    target = e.at(gradient_domain, e.multiply(tile, outputs))
                    shape = height, width, outputs
                    pixels = _patch(e, gradient, (y, x), 2, shape, nothing)
                    with e.loop(outputs, e.lanes) as channel:
                        g = _load_patch(e, pixels, channel)
                        value = transforms.gradient_to_domain(e, g)
                        _store_grid(e, value, target, channel, tiles * outputs)
                        # Element (1, 1) is the sum of the tile's four pixels.
                        sums = e.builder.fadd(e.load(bias, channel), value[1][1])
                        e.store(sums, bias, channel)
                with e.loop(16) as i:
                    matrix_product(
                        e,
                        e.at(domain, e.multiply(i, tiles * inputs)),
                        e.at(gradient_domain, e.multiply(i, tiles * outputs)),
                        e.at(total, e.multiply(i, inputs * outputs)),
                        rows=inputs,
                        columns=outputs,
                        depth=rows * columns,
                        a_row=1,
                        a_depth=inputs,
                        b_depth=outputs,
                        c_row=outputs,
                        accumulate=True,
                    )

            _for_strips(e, height, width, strip)

        runtime.for_share(e, worker, batch, image)

    return body, 2 + has_mask, 3, workers


def _strip_rows(height: int, width: int) -> int:
    """Rows of tiles in a strip."""
    return max(1, min(-(-height // 2), _STRIP // -(-width // 2)))


def _for_strips(e: Emitter, height: int, width: int, strip) -> None:
    rows = _strip_rows(height, width)
    count, rest = divmod(-(-height // 2), rows)
    with e.loop(count) as i:
        strip(e.multiply(i, rows), rows)
    if rest:
        strip(int64(count * rows), rest)


def _patch(e: Emitter, bases, corner, size, shape, outside) -> list:
    """Addresses `[size][size][bases]` of the pixels from `corner` on.

    Args:
      e: where to.
      bases: addresses of images of one shape.
      corner: row and column of the first pixel; may lie outside of the image.
      size: rows and columns.
      shape: height, width and channels of an image.
      outside: the address that stands for pixels outside of the image.
    """
    builder, (height, width, channels) = e.builder, shape

    def axis(start, stride, limit):
        for i in range(size):
            position = e.add(start, i)
            inside = builder.icmp_unsigned("<", position, int64(limit))
            yield e.multiply(position, stride), inside

    columns = list(axis(corner[1], channels, width))
    return [
        [
            [
                builder.select(
                    builder.and_(row_inside, column_inside),
                    e.at(base, row, column),
                    outside,
                )
                for base in bases
            ]
            for column, column_inside in columns
        ]
        for row, row_inside in axis(corner[0], width * channels, height)
    ]


def _load_patch(e: Emitter, pixels, channel) -> transforms.Grid:
    """Vectors at `channel` of every pixel; a second address is that of its mask."""

    def load(source, mask=None):
        value = e.load(source, channel)
        return value if mask is None else e.where_positive(e.load(mask, channel), value)

    return [[load(*addresses) for addresses in row] for row in pixels]


def _load_grid(e: Emitter, source, channel, plane) -> transforms.Grid:
    source = e.at(source, channel)
    return [[e.load(source, (4 * i + j) * plane) for j in range(4)] for i in range(4)]


def _store_grid(e: Emitter, grid: transforms.Grid, target, channel, plane) -> None:
    target = e.at(target, channel)
    for i, j in np.ndindex(4, 4):
        e.store(grid[i][j], target, (4 * i + j) * plane)


def _input_to_domain(
    e: Emitter, sources, corner, shape, nothing, target, plane
) -> None:
    pixels = _patch(e, sources, corner, 4, shape, nothing)
    with e.loop(shape[-1], e.lanes) as channel:
        patch = _load_patch(e, pixels, channel)
        value = transforms.input_to_domain(e, patch)
        _store_grid(e, value, target, channel, plane)

"""3x3 convolutions of stride 2 and their transposes, directly.

`down` halves an image (`nn.Conv` on an even size): out[i] = sum over k of
x[2i + k] w[k] on each axis. `up` doubles it (`nn.ConvTranspose`): four phases, each
a convolution with the taps that meet it, so that no product with an inserted zero
is computed: out[2i] = x[i - 1] w[0] + x[i] w[2] and out[2i + 1] = x[i] w[1]. With
the kernel turned round, each is the other's gradient.
"""

import jax
import numpy as np
from llvmlite import ir

from emnist_jax.cpu import runtime
from emnist_jax.cpu.emitter import Emitter, matrix_product


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    relu: bool = False,
    mask: jax.Array | None = None,
    *,
    transposed: bool,
) -> jax.Array:
    """3x3 convolution of stride 2, or its transpose.

    Args:
      x: `[B, H, W, in]`; channels are multiples of the vector length everywhere,
        H and W even unless transposed.
      kernel: `[3, 3, in, out]`.
      bias: `[out]`, added to the output.
      relu: whether negative outputs become 0.
      mask: `[B, H, W, in]`; x counts as 0 where it is not above 0.
      transposed: whether to double the size instead of halving it.

    Returns:
      `[B, H/2, W/2, out]`, or `[B, 2H, 2W, out]`.
    """
    batch, height, width, inputs = x.shape
    outputs = kernel.shape[-1]
    target = runtime.compile_kernel(
        up if transposed else down,
        *(height, width, inputs, outputs),
        *(bias is not None, relu, mask is not None),
    )
    size = (2 * height, 2 * width) if transposed else (height // 2, width // 2)
    scratch = (runtime.workers(), (height + 1) * (width + 1) * inputs)
    optional = [v for v in (mask, bias) if v is not None]
    results = ((batch, *size, outputs), scratch)
    return runtime.call(target, results, x, kernel, *optional)[0]


def kernel_gradient(
    large: jax.Array,
    small: jax.Array,
    mask: jax.Array | None = None,
    *,
    transposed: bool,
) -> tuple[jax.Array, jax.Array]:
    """Gradients of kernel and bias of `convolve`.

    Args:
      large: `[B, 2H, 2W, L]`: x, or if transposed the gradient of the output.
      small: `[B, H, W, S]`: the gradient of the output, or if transposed x.
      mask: of the gradient's shape; it counts as 0 where this is not above 0.
      transposed: which of the two it is.

    Returns:
      `[3, 3, in, out]` and `[out]`.
    """
    _, height, width, channels = small.shape
    shape = (height, width, large.shape[-1], channels)
    target = runtime.compile_kernel(
        strided_gradient, *shape, transposed, mask is not None
    )
    workers = runtime.workers()
    results = (
        (workers, 3, 3, large.shape[-1], channels),
        (workers, large.shape[-1] if transposed else channels),
        (workers, _gradient_scratch(*shape)),
    )
    optional = [] if mask is None else [mask]
    kernel, bias, _ = runtime.call(target, results, large, small, *optional)
    kernel = kernel.sum(0)
    if transposed:
        kernel = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return kernel, bias.sum(0)


def down(height, width, inputs, outputs, has_bias, relu, has_mask):
    """Kernel: (x, kernel, mask?, bias?) -> (output, scratch)."""
    row = (width + 1) * inputs  # of the image with zeros below and to the right
    taps = [
        (y * row + x * inputs, (3 * y + x) * inputs * outputs)
        for y, x in np.ndindex(3, 3)
    ]

    def compute(e: Emitter, padded, kernel, bias, output):
        with e.loop(height // 2) as i:
            matrix_product(
                e,
                e.at(padded, e.multiply(i, 2 * row)),
                kernel,
                e.at(output, e.multiply(i, width // 2 * outputs)),
                rows=width // 2,
                columns=outputs,
                depth=inputs,
                a_row=2 * inputs,
                a_depth=1,
                b_depth=outputs,
                c_row=outputs,
                taps=taps,
                bias=bias,
                relu=relu,
            )

    pixels = height // 2 * (width // 2)
    shape = height, width, inputs, pixels * outputs
    return _convolution(shape, has_bias, has_mask, (0, 0), compute)


def up(height, width, inputs, outputs, has_bias, relu, has_mask):
    """Kernel: (x, kernel, mask?, bias?) -> (output, scratch)."""
    row = (width + 1) * inputs  # of the image with zeros above and to the left
    reach = {0: ((0, 0), (1, 2)), 1: ((1, 1),)}  # phase: (pixel, tap) pairs

    def compute(e: Emitter, padded, kernel, bias, output):
        with e.loop(height) as i:
            for phase_y, phase_x in np.ndindex(2, 2):
                start = (phase_y * 2 * width + phase_x) * outputs
                matrix_product(
                    e,
                    e.at(padded, e.multiply(i, row)),
                    kernel,
                    e.at(output, e.multiply(i, 4 * width * outputs), start),
                    rows=width,
                    columns=outputs,
                    depth=inputs,
                    a_row=inputs,
                    a_depth=1,
                    b_depth=outputs,
                    c_row=2 * outputs,
                    taps=[
                        (y * row + x * inputs, (3 * i + j) * inputs * outputs)
                        for y, i in reach[phase_y]
                        for x, j in reach[phase_x]
                    ],
                    bias=bias,
                    relu=relu,
                )

    shape = height, width, inputs, 4 * height * width * outputs
    return _convolution(shape, has_bias, has_mask, (1, 1), compute)


def _convolution(shape, has_bias, has_mask, corner, compute):
    """The parts that `down` and `up` share: a padded, masked copy of each image."""
    height, width, inputs, output_size = shape

    def body(e: Emitter, buffers, image, slot, batch):
        buffers = list(buffers)
        x, kernel = buffers.pop(0), buffers.pop(0)
        sources = [x] + ([buffers.pop(0)] if has_mask else [])
        bias = buffers.pop(0) if has_bias else None
        output, scratch = buffers
        size = (height + 1) * (width + 1) * inputs
        padded = e.at(scratch, e.multiply(slot, size))
        e.fill_zero(padded, size)
        sources = [e.at(s, e.multiply(image, height * width * inputs)) for s in sources]
        with e.loop(height) as y, e.loop(width * inputs, e.lanes) as i:
            offset = e.add(e.multiply(y, width * inputs), i)
            start = (corner[0] * (width + 1) + corner[1]) * inputs
            place = e.at(padded, e.multiply(y, (width + 1) * inputs), start, i)
            e.store(_load_masked(e, sources, offset), place)
        start = e.multiply(image, output_size)
        compute(e, padded, kernel, bias, e.at(output, start))

    return body, 2 + has_mask + has_bias, 2, None


def strided_gradient(height, width, larges, smalls, large_is_gradient, has_mask):
    """Kernel: (large, small, mask?) -> (sums per worker, bias sums, scratch).

    Of the large image the pixels of each of the four phases are gathered, and both
    images get a column of zeros, so that the pixels of a whole image are one sum.
    """
    workers = runtime.workers()
    columns = width + 1
    plane = (height + 1) * columns * larges

    def body(e: Emitter, buffers, worker, slot, batch):
        large, small, *mask, total, bias, scratch = buffers
        total = e.at(total, e.multiply(worker, 9 * larges * smalls))
        bias_size = larges if large_is_gradient else smalls
        bias = e.at(bias, e.multiply(worker, bias_size))
        size = _gradient_scratch(height, width, larges, smalls)
        phases = e.at(scratch, e.multiply(worker, size))
        padded = e.at(phases, 4 * plane)
        e.fill_zero(total, 9 * larges * smalls)
        e.fill_zero(bias, bias_size)
        e.fill_zero(phases, size)

        def copy(sources, offset, place, is_gradient, channel):
            sources = sources + mask if is_gradient else sources
            value = _load_masked(e, sources, offset)
            e.store(value, place)
            if is_gradient:
                sums = e.builder.fadd(e.load(bias, channel), value)
                e.store(sums, bias, channel)

        def image(n: ir.Value):
            with e.loop(height) as y, e.loop(width) as x:
                for phase_y, phase_x in np.ndindex(2, 2):
                    row = e.add(e.multiply(e.add(e.multiply(n, height), y), 2), phase_y)
                    column = e.add(e.multiply(x, 2), phase_x)
                    pixel = e.add(e.multiply(row, 2 * width), column)
                    start = (2 * phase_y + phase_x) * plane
                    target = e.add(e.multiply(y, columns), x)
                    with e.loop(larges, e.lanes) as c:
                        place = e.at(phases, start, e.multiply(target, larges), c)
                        offset = e.add(e.multiply(pixel, larges), c)
                        copy([large], offset, place, large_is_gradient, c)
                pixel = e.add(e.multiply(e.add(e.multiply(n, height), y), width), x)
                target = e.add(e.multiply(y, columns), x)
                with e.loop(smalls, e.lanes) as c:
                    place = e.at(padded, e.multiply(target, smalls), c)
                    offset = e.add(e.multiply(pixel, smalls), c)
                    copy([small], offset, place, not large_is_gradient, c)
            for y, x in np.ndindex(3, 3):
                start = (2 * (y % 2) + x % 2) * plane
                start += (y // 2 * columns + x // 2) * larges
                matrix_product(
                    e,
                    e.at(phases, start),
                    padded,
                    e.at(total, (3 * y + x) * larges * smalls),
                    rows=larges,
                    columns=smalls,
                    depth=height * columns - 1,
                    a_row=1,
                    a_depth=larges,
                    b_depth=smalls,
                    c_row=smalls,
                    accumulate=True,
                )

        runtime.for_share(e, worker, batch, image)

    return body, 2 + has_mask, 3, workers


def _gradient_scratch(height, width, larges, smalls) -> int:
    return (height + 1) * (width + 1) * 4 * larges + height * (width + 1) * smalls


def _load_masked(e: Emitter, sources, offset) -> ir.Value:
    value = e.load(sources[0], offset)
    if len(sources) == 1:
        return value
    return e.where_positive(e.load(sources[1], offset), value)

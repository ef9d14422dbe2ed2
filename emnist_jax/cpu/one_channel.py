"""3x3 convolutions of stride 1 from one channel to many and from many to one."""

import jax
import jax.numpy as jnp
import numpy as np
from llvmlite import ir

from emnist_jax.cpu import runtime
from emnist_jax.cpu.emitter import FLOAT, Emitter, matrix_product

_TAPS = 16  # 9, rounded up to whole vectors


def spread(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, relu: bool = False
) -> jax.Array:
    """Convolution from one channel.

    Args:
      x: `[B, H, W, 1]`.
      kernel: `[3, 3, 1, out]`, out a multiple of the vector length.
      bias: `[out]`, added to the output.
      relu: whether negative outputs become 0.

    Returns:
      `[B, H, W, out]`.
    """
    batch, height, width, _ = x.shape
    outputs = kernel.shape[-1]
    shape = (height, width, outputs, bias is not None, relu)
    target = runtime.compile_kernel(one_to_many, *shape)
    results = (
        (batch, height, width, outputs),
        (runtime.workers(), _padded_size(height, width)),
    )
    optional = [] if bias is None else [bias]
    return runtime.call(target, results, x, kernel, *optional)[0]


def gather(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution to one channel.

    Args:
      x: `[B, H, W, in]`, in a multiple of the vector length.
      kernel: `[3, 3, in, 1]`.

    Returns:
      `[B, H, W, 1]`.
    """
    batch, height, width, inputs = x.shape
    taps = kernel.reshape(9, inputs).T
    taps = jnp.pad(taps, ((0, 0), (0, _TAPS - 9)))
    target = runtime.compile_kernel(many_to_one, height, width, inputs)
    scratch = (runtime.workers(), (height + 2) * (width + 2) * _TAPS)
    results = ((batch, height, width, 1), scratch)
    return runtime.call(target, results, x, taps)[0]


def kernel_gradient(
    single: jax.Array, many: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Sums of products of one image with another that is moved by each tap.

    For `spread` that is the gradient of the kernel if `single` is x and `many` the
    gradient of the output; for `gather` it is that with the taps reversed, if
    `single` is the gradient of the output and `many` is x.

    Args:
      single: `[B, H, W, 1]`.
      many: `[B, H, W, C]`.
      mask: `[B, H, W, C]`; `many` counts as 0 where it is not above 0.

    Returns:
      `[3, 3, C]` and the sum of `many`, `[C]`.
    """
    _, height, width, channels = many.shape
    shape = (height, width, channels, mask is not None)
    target = runtime.compile_kernel(one_to_many_gradient, *shape)
    workers = runtime.workers()
    results = ((workers, 10, channels), (workers, _padded_size(height, width)))
    optional = [] if mask is None else [mask]
    sums = runtime.call(target, results, single, many, *optional)[0].sum(0)
    return sums[:9].reshape(3, 3, channels), sums[9]


def one_to_many(height, width, outputs, has_bias, relu):
    """Kernel: (x, kernel, bias?) -> (output, scratch)."""
    row = width + 2

    def body(e: Emitter, buffers, image, slot, batch):
        x, kernel, *bias, output, scratch = buffers
        padded = _pad(e, x, scratch, image, slot, height, width)
        with e.loop(height) as y:
            pixel = e.multiply(e.add(e.multiply(image, height), y), width)
            matrix_product(
                e,
                e.at(padded, e.multiply(y, row)),
                kernel,
                e.at(output, e.multiply(pixel, outputs)),
                rows=width,
                columns=outputs,
                depth=1,
                a_row=1,
                a_depth=0,
                b_depth=0,
                c_row=outputs,
                taps=[
                    (i * row + j, (3 * i + j) * outputs) for i, j in np.ndindex(3, 3)
                ],
                bias=bias[0] if has_bias else None,
                relu=relu,
            )

    return body, 2 + has_bias, 2, None


def many_to_one(height, width, inputs):
    """Kernel: (x, taps `[in, 16]`) -> (output, scratch).

    First every pixel's product with every tap, then for each pixel the sum of nine.
    """
    row = (width + 2) * _TAPS

    def body(e: Emitter, buffers, image, slot, batch):
        x, taps, output, scratch = buffers
        size = (height + 2) * row
        products = e.at(scratch, e.multiply(slot, size))
        e.fill_zero(products, size)
        with e.loop(height) as y:
            pixel = e.multiply(e.add(e.multiply(image, height), y), width)
            matrix_product(
                e,
                e.at(x, e.multiply(pixel, inputs)),
                taps,
                e.at(products, e.multiply(e.add(y, 1), row), _TAPS),
                rows=width,
                columns=_TAPS,
                depth=inputs,
                a_row=inputs,
                a_depth=1,
                b_depth=_TAPS,
                c_row=_TAPS,
            )
        with e.loop(height) as y, e.loop(width) as x:
            corner = e.at(products, e.multiply(y, row), e.multiply(x, _TAPS))
            total = None
            for i, j in np.ndindex(3, 3):
                place = e.at(corner, i * row + j * _TAPS + 3 * i + j)
                value = e.builder.load(place, typ=FLOAT)
                total = value if total is None else e.builder.fadd(total, value)
            pixel = e.multiply(e.add(e.multiply(image, height), y), width)
            e.builder.store(total, e.at(output, pixel, x))

    return body, 2, 2, None


def one_to_many_gradient(height, width, channels, has_mask):
    """Kernel: (single, many, mask?) -> (nine sums and that of many, scratch)."""
    row = width + 2

    def body(e: Emitter, buffers, worker, slot, batch):
        single, *many, total, scratch = buffers
        total = e.at(total, e.multiply(worker, 10 * channels))
        e.fill_zero(total, 10 * channels)

        def image(n: ir.Value):
            padded = _pad(e, single, scratch, n, worker, height, width)
            with e.loop(channels, e.lanes) as channel:
                sums = [e.variable() for _ in range(10)]
                for i, variable in enumerate(sums):
                    e.set(variable, e.load(e.at(total, channel), i * channels))
                with e.loop(height) as y, e.loop(width) as x:
                    pixel = e.multiply(e.add(e.multiply(n, height), y), width)
                    offset = e.add(e.multiply(e.add(pixel, x), channels), channel)
                    value = e.load(many[0], offset)
                    if has_mask:
                        value = e.where_positive(e.load(many[1], offset), value)
                    corner = e.at(padded, e.multiply(y, row), x)
                    for i, j in np.ndindex(3, 3):
                        sum_ = sums[3 * i + j]
                        pixel = e.splat(corner, i * row + j)
                        e.set(sum_, e.fma(pixel, value, e.get(sum_)))
                    e.set(sums[9], e.builder.fadd(e.get(sums[9]), value))
                for i, variable in enumerate(sums):
                    e.store(e.get(variable), e.at(total, channel), i * channels)

        runtime.for_share(e, worker, batch, image)

    return body, 2 + has_mask, 2, runtime.workers()


def _padded_size(height: int, width: int) -> int:
    """Floats of an image with a frame of zeros, rounded up to whole vectors."""
    return -(-(height + 2) * (width + 2) // 16) * 16


def _pad(e: Emitter, x, scratch, image, slot, height, width) -> ir.Value:
    """Address of a copy of a one-channel image in a frame of zeros."""
    size = _padded_size(height, width)
    padded = e.at(scratch, e.multiply(slot, size))
    e.fill_zero(padded, size)
    with e.loop(height) as y, e.loop(width) as column:
        pixel = e.multiply(e.add(e.multiply(image, height), y), width)
        value = e.builder.load(e.at(x, pixel, column), typ=FLOAT)
        row = e.multiply(e.add(y, 1), width + 2)
        e.builder.store(value, e.at(padded, row, e.add(column, 1)))
    return padded

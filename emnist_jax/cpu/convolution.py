"""3x3 convolutions by the kernels, where there are some, and by `lax` where not.

Which of the two computes a layer is decided when a program is lowered, by the
platform that it is lowered for: a program exported for TPU from here holds no kernel.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from emnist_jax import cpu

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
KERNEL_KINDS = ("same", "spread", "gather", "down", "up")

plain_only = jax.make_user_context(False)  # compiled functions are told apart by it


def convolve(x, kernel, bias, strides: int, transposed: bool, relu: bool) -> jax.Array:
    """`lax.conv_general_dilated` or `lax.conv_transpose`, a bias, and perhaps relu.

    Args:
      x: `[B, H, W, in]`.
      kernel: `[3, 3, in, out]`.
      bias: `[out]`.
      strides: 1 or 2.
      transposed: which of the two.
      relu: whether negative outputs become 0.

    Returns:
      `[B, H', W', out]`.
    """
    kind = _kind(x, kernel.shape[-1], strides, transposed)
    if kind:
        return _layer(x, kernel, bias, kind, relu)
    return _finish(_plain(x, kernel, strides, transposed), bias, relu)


def _kind(x: jax.Array, features: int, strides: int, transposed: bool) -> str | None:
    """Which code for CPUs computes the layer; None if there is none for it.

    On a machine with an accelerator there is none: compiling it would only take time.
    """
    wanted = cpu.wanted() and not plain_only.value and jax.default_backend() == "cpu"
    if not wanted or x.ndim != 4 or 0 in x.shape:
        return None
    phases = "phases" if transposed and strides == 2 else None
    lanes = cpu.vector_length()
    if not lanes or x.dtype != jnp.float32:
        return phases
    _, height, width, inputs = x.shape
    kind = phases
    if inputs % lanes == 0 and features % lanes == 0:
        even = height % 2 == 0 and width % 2 == 0
        down = "down" if even else None
        kind = "same" if strides == 1 else "up" if transposed else down
    elif strides == 1 and features == 1 and inputs % lanes == 0:
        kind = "gather"
    elif strides == 1 and inputs == 1 and features % lanes == 0:
        kind = "spread"
    return kind if kind not in KERNEL_KINDS or cpu.kernels_work() else phases


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _layer(x, kernel, bias, kind, relu):
    fast, plain = (functools.partial(f, kind, relu) for f in (forward, plain_forward))
    return _by_platform(fast, plain, x, kernel, bias)


def _layer_forward(x, kernel, bias, kind, relu):
    y = _layer(x, kernel, bias, kind, relu)
    return y, (x, kernel, y if relu else None)


def _layer_backward(kind, relu, residuals, gradient):
    fast, plain = (functools.partial(f, kind) for f in (backward, plain_backward))
    return _by_platform(fast, plain, *residuals, gradient)


_layer.defvjp(_layer_forward, _layer_backward)


def _by_platform(fast: Callable, plain: Callable, *arguments):
    def guarded(*arguments):
        try:
            return fast(*arguments)
        except Exception as error:  # whatever it is, the program goes on
            result = plain(*arguments)
            cpu.give_up(f"{type(error).__name__}: {error}")
            return result

    return lax.platform_dependent(*arguments, cpu=guarded, default=plain)


def forward(kind: str, relu: bool, x, kernel, bias) -> jax.Array:
    """A layer by the code for CPUs."""
    if kind == "phases":
        return _finish(_upsample(x, kernel), bias, relu)
    from emnist_jax.cpu import one_channel, strided, winograd

    if kind == "same":
        return winograd.convolve(x, kernel, bias, relu)
    if kind == "spread":
        return one_channel.spread(x, kernel, bias, relu)
    if kind == "gather":
        return _finish(one_channel.gather(x, kernel), bias, relu)
    return strided.convolve(x, kernel, bias, relu, transposed=kind == "up")


def backward(kind: str, x, kernel, mask, gradient) -> tuple[jax.Array, ...]:
    """Gradients of input, kernel and bias by the code for CPUs.

    Args:
      kind: of the layer.
      x: its input.
      kernel: `[3, 3, in, out]`.
      mask: the output if negative ones became 0, else None.
      gradient: of the output.

    Returns:
      As `x`, as `kernel` and `[out]`.
    """
    if kind == "phases":
        return _transposed(_upsample, x, kernel, mask, gradient)
    from emnist_jax.cpu import one_channel, strided, winograd

    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    if kind == "same":
        dx = winograd.convolve(gradient, turned, mask=mask)
        return dx, *winograd.kernel_gradient(x, gradient, mask)
    if kind in ("up", "down"):
        up = kind == "up"
        dx = strided.convolve(gradient, turned, mask=mask, transposed=not up)
        large, small = (gradient, x) if up else (x, gradient)
        return dx, *strided.kernel_gradient(large, small, mask, transposed=up)
    masked = _masked(gradient, mask)
    if kind == "spread":
        dx = one_channel.gather(masked, turned)
        dkernel, dbias = one_channel.kernel_gradient(x, gradient, mask)
        return dx, dkernel[:, :, None], dbias
    dx = one_channel.spread(masked, turned)
    dkernel, _ = one_channel.kernel_gradient(masked, x)
    return dx, dkernel[::-1, ::-1, :, None], masked.sum((0, 1, 2))


def plain_forward(kind: str, relu: bool, x, kernel, bias) -> jax.Array:
    """`forward` by `lax`."""
    return _finish(_plain(x, kernel, *_stride(kind)), bias, relu)


def plain_backward(kind: str, x, kernel, mask, gradient) -> tuple[jax.Array, ...]:
    """`backward` by `lax`."""
    strides, transposed = _stride(kind)

    def function(x, kernel):
        return _plain(x, kernel, strides, transposed)

    return _transposed(function, x, kernel, mask, gradient)


def _stride(kind: str) -> tuple[int, bool]:
    """Strides, and whether the layer is transposed; at stride 1 it is the same."""
    return 2 if kind in ("up", "down", "phases") else 1, kind in ("up", "phases")


def _plain(x, kernel, strides: int, transposed: bool) -> jax.Array:
    convolution = lax.conv_transpose if transposed else lax.conv_general_dilated
    return convolution(
        x, kernel, (strides, strides), "SAME", dimension_numbers=_DIMENSIONS
    )


def _transposed(function, x, kernel, mask, gradient) -> tuple[jax.Array, ...]:
    gradient = _masked(gradient, mask)
    _, transpose = jax.vjp(function, x, kernel)
    return *transpose(gradient), gradient.sum((0, 1, 2))


def _masked(gradient, mask):
    return gradient if mask is None else jnp.where(mask > 0, gradient, 0)


def _finish(y, bias, relu: bool) -> jax.Array:
    y = y + bias[None, None, None]
    return nn.relu(y) if relu else y


def _upsample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride-2 transposed convolution as four small ones, interleaved.

    Output rows 2i see input rows i-1 and i through taps 0 and 2; rows 2i+1 see
    row i through tap 1; columns likewise.

    Args:
      x: `[B, H, W, in]`.
      kernel: `[3, 3, in, out]`.

    Returns:
      `[B, 2H, 2W, out]`.
    """
    batch, height, width, _ = x.shape
    taps = (slice(0, 3, 2), slice(1, 2))
    phases = [
        lax.conv_general_dilated(
            x,
            kernel[taps[row], taps[column]],
            (1, 1),
            ((1 - row, 0), (1 - column, 0)),
            dimension_numbers=_DIMENSIONS,
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    y = jnp.stack(phases, axis=3).reshape(batch, height, width, 2, 2, -1)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1)

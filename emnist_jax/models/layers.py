"""3x3 convolutions that are those of Flax, but run well on a CPU.

Parameters, initial values and outputs are those of `nn.Conv(features, (3, 3))`
and `nn.ConvTranspose(features, (3, 3))`, so checkpoints are interchangeable.

What it took, as images a second in training (model01, batch 128, two cores of an AMD
EPYC with AVX-512, one sitting; the last two rows are medians of three processes, the
others single ones; absolute figures differ from machine to machine):

| layers | images/s |
|---|---|
| `flax.linen` | 184 |
| + stride-2 transposed convolutions as four small ones | 445 |
| + the XLA option below | 531 |
| `emnist_jax.cpu`: Winograd; stride 2 and one channel directly | 1,143 |
| + freed memory kept, see `cpu.prepare_process` | 1,440 |

Of it, transforming Winograd's 3x3 weights by additions instead of an einsum was 9%.
The XLA option brings nothing more once the kernels run; it is for where they do not.
Tried and left out: Winograd written in JAX (2 to 10 times slower than `lax.conv`),
longer strips of tiles in the weight gradient (no difference). XLA's convolutions
inside `lax.scan` are 4 times slower than in a step called from Python, which is why
an epoch on a CPU is a Python loop (`feed.py`).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from emnist_jax import cpu

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _use_cpu_path() -> bool:
    return jax.default_backend() == "cpu" and cpu.wanted()


class _Layer(nn.Module):
    """A 3x3 layer on `[B, H, W, in]`.

    Attributes:
      features: channels of the output.
      strides: 1 or 2, on both axes.
      kernel_init: initialiser of the kernel `[3, 3, in, features]`.
      bias_init: initialiser of the bias `[features]`.
      dtype: of the computation, None for that of inputs and parameters together;
        parameters are float32.
      relu: whether negative outputs become 0; on a CPU cheaper than `nn.relu` after
        the layer.
    """

    features: int
    strides: int = 1
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    dtype: DTypeLike | None = None
    relu: bool = False

    def _apply(self, x: ArrayLike, transposed: bool) -> jax.Array:
        shape = (3, 3, jnp.shape(x)[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        kind = _kind(x, self.features, self.strides, transposed)
        if kind:
            return _fast_layer(x, kernel, bias, kind, self.relu)
        y = _plain(x, kernel, self.strides, transposed) + bias[None, None, None]
        return nn.relu(y) if self.relu else y


class Conv(_Layer):
    """`nn.Conv(features, (3, 3), strides=(s, s))`."""

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        """Returns `[B, ceil(H / strides), ceil(W / strides), features]`."""
        return self._apply(x, transposed=False)


class ConvTranspose(_Layer):
    """`nn.ConvTranspose(features, (3, 3), strides=(s, s))`."""

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        """Returns `[B, H * strides, W * strides, features]`."""
        return self._apply(x, transposed=True)


def _plain(
    x: jax.Array, kernel: jax.Array, strides: int, transposed: bool
) -> jax.Array:
    if transposed and strides == 2 and _use_cpu_path():
        return _upsample(x, kernel)
    convolve = lax.conv_transpose if transposed else lax.conv_general_dilated
    return convolve(
        x, kernel, (strides, strides), "SAME", dimension_numbers=_DIMENSIONS
    )


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


def _kind(x: jax.Array, features: int, strides: int, transposed: bool) -> str | None:
    """Which kernels compute the layer; None if there are none for it."""
    lanes = cpu.vector_length() if _use_cpu_path() else 0
    if not lanes or x.dtype != jnp.float32 or x.ndim != 4 or 0 in x.shape:
        return None
    _, height, width, inputs = x.shape
    if strides == 1:
        if features == 1 and inputs % lanes == 0:
            return "gather"
        if inputs == 1 and features % lanes == 0:
            return "spread"
    if inputs % lanes or features % lanes:
        return None
    if strides == 1:
        return "same"
    if strides != 2:
        return None
    if transposed:
        return "up"
    return "down" if height % 2 == 0 and width % 2 == 0 else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _fast_layer(x, kernel, bias, kind, relu):
    """A layer by the kernels of `emnist_jax.cpu`."""
    from emnist_jax.cpu import one_channel, strided, winograd

    if kind == "same":
        return winograd.convolve(x, kernel, bias, relu)
    if kind == "spread":
        return one_channel.spread(x, kernel, bias, relu)
    if kind == "gather":
        y = one_channel.gather(x, kernel) + bias[None, None, None]
        return nn.relu(y) if relu else y
    return strided.convolve(x, kernel, bias, relu, transposed=kind == "up")


def _fast_layer_forward(x, kernel, bias, kind, relu):
    y = _fast_layer(x, kernel, bias, kind, relu)
    return y, (x, kernel, y if relu else None)


def _fast_layer_backward(kind, relu, residuals, gradient):
    from emnist_jax.cpu import one_channel, strided, winograd

    x, kernel, mask = residuals
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    if kind == "same":
        dx = winograd.convolve(gradient, turned, mask=mask)
        return dx, *winograd.kernel_gradient(x, gradient, mask)
    if kind in ("up", "down"):
        up = kind == "up"
        dx = strided.convolve(gradient, turned, mask=mask, transposed=not up)
        large, small = (gradient, x) if up else (x, gradient)
        return dx, *strided.kernel_gradient(large, small, mask, transposed=up)
    masked = gradient if mask is None else jnp.where(mask > 0, gradient, 0)
    if kind == "spread":
        dx = one_channel.gather(masked, turned)
        dkernel, dbias = one_channel.kernel_gradient(x, gradient, mask)
        return dx, dkernel[:, :, None], dbias
    dx = one_channel.spread(masked, turned)
    dkernel, _ = one_channel.kernel_gradient(masked, x)
    return dx, dkernel[::-1, ::-1, :, None], masked.sum((0, 1, 2))


_fast_layer.defvjp(_fast_layer_forward, _fast_layer_backward)

"""3x3 convolutions that are those of Flax, but run well on a CPU.

Parameters, initial values and outputs are those of `nn.Conv(features, (3, 3))`
and `nn.ConvTranspose(features, (3, 3))`, so checkpoints are interchangeable.
"""

import functools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


def _use_cpu_path() -> bool:
    """Whether the CPU path is used: the one place that reads the switch."""
    switch = os.environ.get("EMNIST_JAX_CPU_LAYERS", "1")
    return jax.default_backend() == "cpu" and switch != "0"


def compiler_options() -> dict[str, str]:
    """The XLA options that pay on this machine, for `jax.jit(compiler_options=)`.

    Returns:
      Options by name; empty off CPU, with `EMNIST_JAX_CPU_LAYERS=0`, and where
      this jaxlib does not know them.
    """
    return dict(_known_cpu_options()) if _use_cpu_path() else {}


@functools.cache
def _known_cpu_options() -> dict[str, str]:
    try:
        probe = jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS)
        probe.lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except jax.errors.JaxRuntimeError:  # an unknown option or value
        return {}
    return _CPU_OPTIONS


def _convolve(x: jax.Array, kernel: jax.Array, strides: int, padding) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), padding, dimension_numbers=_DIMENSIONS
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
        _convolve(
            x, kernel[taps[row], taps[column]], 1, ((1 - row, 0), (1 - column, 0))
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    y = jnp.stack(phases, axis=3).reshape(batch, height, width, 2, 2, -1)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1)


class _Layer(nn.Module):
    """Parameters and compute dtype of a 3x3 layer on `[B, H, W, in]`."""

    features: int
    strides: int = 1
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    dtype: DTypeLike | None = None  # of the computation; parameters are float32

    def _promoted(self, x: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
        shape = (3, 3, jnp.shape(x)[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)


class Conv(_Layer):
    """`nn.Conv(features, (3, 3), strides=(s, s))`: `[B, H, W, in]` to features."""

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        """Returns `[B, ceil(H / strides), ceil(W / strides), features]`."""
        x, kernel, bias = self._promoted(x)
        return _convolve(x, kernel, self.strides, "SAME") + bias[None, None, None]


class ConvTranspose(_Layer):
    """`nn.ConvTranspose(features, (3, 3), strides=(s, s))` with s = 1 or 2."""

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        """Returns `[B, H * strides, W * strides, features]`."""
        x, kernel, bias = self._promoted(x)
        if self.strides == 2 and _use_cpu_path():
            y = _upsample(x, kernel)
        else:
            strides = (self.strides, self.strides)
            y = lax.conv_transpose(
                x, kernel, strides, "SAME", dimension_numbers=_DIMENSIONS
            )
        return y + bias[None, None, None]

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

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from emnist_jax.cpu.convolution import convolve


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
        return convolve(x, kernel, bias, self.strides, transposed, self.relu)


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

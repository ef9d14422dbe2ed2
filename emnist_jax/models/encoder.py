"""The encoder that all four models share."""

from typing import Any

import flax.linen as nn
import jax

from emnist_jax.models.layers import Conv
from emnist_jax.models.registry import IMAGE_SIZE

# Features and stride of each 3x3 convolution, in order (published study).
LAYERS = ((32, 1), (64, 2), (64, 1), (64, 1))

LATENT_ACTIVATIONS = {"linear": lambda x: x, "relu": nn.relu}


class Encoder(nn.Module):
    """Strided-convolution encoder: an image becomes a short vector.

    Attributes:
      latent_dim: length of the latent vector.
      latent_activation: 'linear' or 'relu' (the published one).
      kernel_init: initialiser of every kernel.
      dtype: computing type; None keeps that of the inputs and parameters.
      image_size: height and width of the images, both even.
    """

    latent_dim: int = 32
    latent_activation: str = "linear"
    kernel_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()
    dtype: Any = None
    image_size: tuple[int, int] = IMAGE_SIZE

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes `images` [B, H, W, 1] in [0, 1] to latents [B, latent_dim]."""
        options = dict(kernel_init=self.kernel_init, dtype=self.dtype)
        x = images
        for number, (features, strides) in enumerate(LAYERS, start=1):
            name = f"conv{number}"  # [B, H, W, 32], then [B, H/2, W/2, 64]
            x = Conv(features, strides, relu=True, name=name, **options)(x)
        x = x.reshape((x.shape[0], -1))  # [B, 12544] of EMNIST's
        latents = nn.Dense(self.latent_dim, name="latent", **options)(x)
        return LATENT_ACTIVATIONS[self.latent_activation](latents)

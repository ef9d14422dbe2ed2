"""An encoder and a decoder in one module."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from emnist_jax.models.decoders import make_decoder
from emnist_jax.models.encoder import Encoder
from emnist_jax.models.registry import IMAGE_SIZE

INITIALIZERS = {
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he_uniform": nn.initializers.he_uniform(),
    "lecun_normal": nn.initializers.lecun_normal(),
}


@flax.struct.dataclass
class Reconstruction:
    """What an autoencoder makes of images."""

    images: jax.Array  # [B, H, W, 1] in [0, 1]
    latents: jax.Array  # [B, latent_dim]


class Autoencoder(nn.Module):
    """Encoder and decoder, whose parameters are the trees 'encoder' and 'decoder'.

    For one key the encoder starts from the same values under every decoder.

    Attributes:
      decoder_name: 'model01' to 'model04'.
      latent_dim: length of the latent vector.
      latent_activation: 'linear' or 'relu'.
      initialization: a key of `INITIALIZERS`.
      output_bias: initial bias of the last layer, a logit.
      dtype: computing type, e.g. jnp.bfloat16; parameters stay float32.
      image_size: height and width of the images, both even.
    """

    decoder_name: str
    latent_dim: int = 32
    latent_activation: str = "linear"
    initialization: str = "glorot_uniform"
    output_bias: float = 0.0
    dtype: Any = None
    image_size: tuple[int, int] = IMAGE_SIZE

    def setup(self):
        """Builds both halves."""
        options = dict(
            kernel_init=INITIALIZERS[self.initialization],
            dtype=self.dtype,
            image_size=self.image_size,
        )
        self.encoder = Encoder(self.latent_dim, self.latent_activation, **options)
        self.decoder = make_decoder(
            self.decoder_name, output_bias=self.output_bias, **options
        )

    def encode(self, images: jax.Array) -> jax.Array:
        """Latents [B, latent_dim] of `images` [B, H, W, 1], uint8 or in [0, 1]."""
        return self.encoder(to_unit_range(images))

    def decode(self, latents: jax.Array) -> jax.Array:
        """Images [B, H, W, 1] in [0, 1] of `latents` [B, latent_dim]."""
        return self.decoder(latents)

    def __call__(self, images: jax.Array) -> Reconstruction:
        """Encodes and decodes `images` [B, H, W, 1], uint8 or in [0, 1]."""
        latents = self.encode(images)
        return Reconstruction(self.decode(latents), latents)


def to_unit_range(images: jax.Array) -> jax.Array:
    """Images as floats in [0, 1]: uint8 is divided by 255, floats are kept."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    return images

"""The alternatives that the published study rejected, at the same places."""

from typing import Any

import flax.linen as nn
import jax

from emnist_jax.models import decoders, encoder
from emnist_jax.models.autoencoder import INITIALIZERS, Reconstruction, to_unit_range
from emnist_jax.models.layers import Conv, ConvTranspose
from emnist_jax.models.registry import IMAGE_SIZE

OPTIONS = {"kernel_init": INITIALIZERS["glorot_uniform"]}


class PoolingEncoder(nn.Module):
    """The encoder with max pooling after the convolution that had stride 2.

    The same parameters; that convolution meets four times as many positions.
    """

    latent_dim: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Encodes images [B, 28, 28, 1] in [0, 1] to latents [B, latent_dim]."""
        for number, (features, strides) in enumerate(encoder.LAYERS, start=1):
            x = Conv(features, relu=True, name=f"conv{number}", **OPTIONS)(x)
            if strides > 1:
                x = nn.max_pool(x, (strides, strides), (strides, strides))
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(self.latent_dim, name="latent", **OPTIONS)(x)


class UpsamplingDecoder(nn.Module):
    """The decoder with nearest-neighbour upsampling before a plain convolution.

    The same parameters; that convolution meets four times as many positions.
    """

    upsampling_layer: int
    output_bias: float = 0.0

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        """Decodes latents [B, latent_dim] to images [B, 28, 28, 1] in [0, 1]."""
        x = nn.relu(nn.Dense(14 * 14 * 64, name="dense", **OPTIONS)(latents))
        x = x.reshape((x.shape[0], 14, 14, 64))
        for number, features in enumerate(decoders.FEATURES, start=1):
            if number == self.upsampling_layer:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
            name = f"conv_transpose{number}"
            x = ConvTranspose(features, relu=True, name=name, **OPTIONS)(x)
        bias_init = nn.initializers.constant(self.output_bias)
        output = ConvTranspose(1, name="output", bias_init=bias_init, **OPTIONS)
        return nn.sigmoid(output(x))


class Alternative(nn.Module):
    """An autoencoder with either half replaced.

    Attributes:
      decoder_name: where the decoder upsamples, 'model01' to 'model04'.
      output_bias: initial bias of the last layer, a logit.
      pooling: max pooling instead of a strided convolution.
      upsampling: upsampling and convolution instead of a transposed one.
      image_size: height and width of the images; no other is supported.
    """

    decoder_name: str
    output_bias: float
    pooling: bool = False
    upsampling: bool = False
    image_size: tuple[int, int] = IMAGE_SIZE

    def setup(self):
        """Builds both halves under the names of `Autoencoder`."""
        bias = {"output_bias": self.output_bias}
        self.encoder = PoolingEncoder() if self.pooling else encoder.Encoder(**OPTIONS)
        if self.upsampling:
            layer = decoders.make_decoder(self.decoder_name).upsampling_layer
            self.decoder: Any = UpsamplingDecoder(layer, **bias)
        else:
            self.decoder = decoders.make_decoder(self.decoder_name, **bias, **OPTIONS)

    def __call__(self, images: jax.Array) -> Reconstruction:
        """Encodes and decodes `images` [B, 28, 28, 1], uint8 or in [0, 1]."""
        latents = self.encoder(to_unit_range(images))
        return Reconstruction(self.decoder(latents), latents)

"""The four decoders: one chain of layers that differs only in where it upsamples."""

from typing import Any

import flax.linen as nn
import jax

from emnist_jax.models.layers import ConvTranspose
from emnist_jax.models.registry import DECODERS, IMAGE_SIZE

# Features of the hidden 3x3 transposed convolutions, in order (published study).
FEATURES = (64, 64, 64, 32)


class Decoder(nn.Module):
    """Transposed-convolution decoder: a latent vector becomes an image.

    Attributes:
      upsampling_layer: the hidden layer (1 to 4) that has stride 2.
      kernel_init: initialiser of every kernel.
      output_bias: initial bias of the last layer, a logit. With the logit of the
        mean training pixel the first reconstructions have the right brightness;
        with 0 they are grey, and the first steps can blacken them for good.
      dtype: computing type; None keeps that of the inputs and parameters.
      image_size: height and width of the images, both even.
    """

    upsampling_layer: int
    kernel_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()
    output_bias: float = 0.0
    dtype: Any = None
    image_size: tuple[int, int] = IMAGE_SIZE

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        """Decodes `latents` [B, latent_dim] to images [B, H, W, 1] in [0, 1]."""
        options = dict(kernel_init=self.kernel_init, dtype=self.dtype)
        height, width = (side // 2 for side in self.image_size)
        dense = nn.Dense(height * width * 64, name="dense", **options)
        x = nn.relu(dense(latents))
        x = x.reshape((x.shape[0], height, width, 64))
        for number, features in enumerate(FEATURES, start=1):
            strides = 2 if number == self.upsampling_layer else 1
            name = f"conv_transpose{number}"
            x = ConvTranspose(features, strides, relu=True, name=name, **options)(x)
        # [B, H, W, 32]
        bias_init = nn.initializers.constant(self.output_bias)
        output = ConvTranspose(1, name="output", bias_init=bias_init, **options)
        return nn.sigmoid(output(x))


def make_decoder(name: str, **options: Any) -> nn.Module:
    """The decoder registered as `name`, e.g. 'model01' (`registry.DECODERS`)."""
    kind, attributes = DECODERS[name]
    return globals()[kind](**attributes, **options)

"""Lossless and lossy codec for small grayscale images.

from emnist_jax import codec

content = codec.compress(images)  # uint8 [N, height, width]
images = codec.decompress(content)
image = codec.open("images.ejx")[7]  # decodes one block
codec.join("all.ejx", "a.ejx", "b.ejx")  # decodes nothing
"""

from emnist_jax.codec.joining import join
from emnist_jax.codec.reader import CompressedImages, decompress
from emnist_jax.codec.reader import open_file as open
from emnist_jax.codec.writer import compress, compress_file

__all__ = [
    "CompressedImages",
    "compress",
    "compress_file",
    "decompress",
    "join",
    "open",
]

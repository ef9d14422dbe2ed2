"""Lossless and lossy codec for small grayscale images.

from emnist_jax import codec

content = codec.compress(images)  # uint8 [N, height, width]
images = codec.decompress(content)
image = codec.open("images.ejx")[7]  # decodes one block
many = codec.open("shards/")[:1000]  # of all files in a folder
codec.join("all.ejx", "a.ejx", "b.ejx")  # decodes nothing
"""

from emnist_jax.codec.folder import CompressedFolder
from emnist_jax.codec.folder import open_path as open
from emnist_jax.codec.joining import join
from emnist_jax.codec.reader import CompressedImages, decompress
from emnist_jax.codec.writer import compress, compress_file

__all__ = [
    "CompressedFolder",
    "CompressedImages",
    "compress",
    "compress_file",
    "decompress",
    "join",
    "open",
]

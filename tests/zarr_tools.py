"""Small arrays for tests of the codec in zarr."""

from codec_models import TINY

from emnist_jax.codec import zarr_form

CHUNK = 12  # images


def write(store, images, **options):
    """An array of ours with `images`; its model is in its metadata."""
    options = {"model": TINY, "block_images": 4, "chunk_images": CHUNK} | options
    array = zarr_form.create(store, images.shape, **options)
    array[:] = images
    return array

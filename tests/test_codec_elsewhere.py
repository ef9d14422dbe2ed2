"""Files decode to the same pixels in other batches and under other settings."""

import os
import subprocess
import sys

import numpy as np
import pytest
from codec_models import TINY, coded_content

from emnist_jax import codec


@pytest.mark.long  # test_codec_exactness.py compares the tables
def test_a_file_decodes_alike_in_batches_of_1_7_and_4096():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8192, 3, 4)).astype(np.uint8)
    images[rng.random(images.shape) < 0.5] = 0
    content = coded_content(images, 1)
    opened = codec.CompressedImages(content, "x", model=TINY)
    # All blocks are decoded in two groups, 4096 images each.
    np.testing.assert_array_equal(opened.read(), images)
    np.testing.assert_array_equal(opened.read(20, 34), images[20:34])  # two of 7
    for index in (0, 77, 8191):
        np.testing.assert_array_equal(opened[index], images[index])


ELSEWHERE = """
import sys
import jax
import numpy as np
if "x64" in sys.argv:
    jax.config.update("jax_enable_x64", True)
from emnist_jax import codec
same = [
    np.array_equal(codec.decompress(open(name + ".ejx", "rb").read()), pixels)
    for name, pixels in np.load("pixels.npz").items()
]
sys.exit(0 if all(same) and len(same) == 2 else 1)
"""


@pytest.fixture(scope="module")
def files_to_decode(images, tmp_path_factory):
    """A folder with a lossless and a near-lossless file, and their pixels."""
    folder = tmp_path_factory.mktemp("files")
    for name, options in (
        ("lossless", {"model": "fast"}),
        ("near", {"model": TINY, "embed_model": True, "max_error": 2}),
    ):
        mode = "near-lossless" if name == "near" else "lossless"
        content = codec.compress(images[:5, 8:18, 8:18], mode=mode, **options)
        (folder / f"{name}.ejx").write_bytes(content)
    near = codec.decompress((folder / "near.ejx").read_bytes())
    np.savez(folder / "pixels.npz", lossless=images[:5, 8:18, 8:18], near=near)
    return folder


@pytest.mark.parametrize(
    ("flag", "argument"),
    [
        ("--xla_cpu_enable_fast_math=true", ""),
        ("--xla_cpu_multi_thread_eigen=false", "x64"),
    ],
    ids=["fast math and all threads", "one thread and float64"],
)
def test_decoding_under_other_settings(flag, argument, files_to_decode):
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, argument],
        env=os.environ | {"XLA_FLAGS": flag},
        cwd=files_to_decode,
        check=True,
    )

"""Open codec files in other processes: forked after use, and pickled."""

import multiprocessing
import warnings

import numpy as np
from codec_models import TINY

from emnist_jax import codec
from emnist_jax.errors import UserError


def read_all(opened, answers):
    try:
        opened.read()
    except UserError as error:
        answers.put(str(error))
    else:
        answers.put("read")


def test_a_child_forked_after_use_ends_with_an_error(images):
    opened = codec.CompressedImages(
        codec.compress(images[:2], model=TINY, embed_model=True), "x"
    )
    np.testing.assert_array_equal(opened.read(), images[:2])
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=read_all, args=(opened, answers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python 3.12 advise against it too
        child.start()
    child.join(20)
    child.kill()
    assert child.exitcode == 0, "it hangs"
    assert "JAX was used in the parent process" in answers.get()

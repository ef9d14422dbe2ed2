"""Open codec files in other processes: forked after use, and pickled."""

import multiprocessing
import os
import pickle
import shutil
import threading
import warnings

import numpy as np
import pytest
from codec_models import TINY

from emnist_jax import codec
from emnist_jax.cli.errors import UserError


def read_all(opened, answers):
    try:
        opened.read()
    except UserError as error:
        answers.put(str(error))
    else:
        answers.put("read")


def read_in_a_fork(opened):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=read_all, args=(opened, answers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python 3.12 advise against it
        child.start()
    child.join(20)
    child.kill()
    assert child.exitcode == 0, "it hangs"
    return answers.get()


@pytest.mark.parametrize("cpu_layers", ["1", "0"])
def test_a_child_forked_after_use(images, cpu_layers, monkeypatch):
    monkeypatch.setenv("EMNIST_JAX_CPU_LAYERS", cpu_layers)
    opened = codec.CompressedImages(
        codec.compress(images[:2], model=TINY, embed_model=True), "x"
    )
    np.testing.assert_array_equal(opened.read(), images[:2])
    answer = read_in_a_fork(opened)
    assert answer == "read" or cpu_layers == "0" and "JAX was used" in answer


def copied(opened):
    return pickle.loads(pickle.dumps(opened))


def test_an_open_file_pickles_as_its_path(images, tmp_path, monkeypatch):
    shutil.copy(TINY, tmp_path / "tiny.ejm")
    monkeypatch.chdir(tmp_path)
    codec.compress_file("a.ejx", images[:3], model="tiny.ejm")
    with codec.open("a.ejx", model="tiny.ejm") as opened:
        monkeypatch.chdir("/")
        assert len(pickle.dumps(opened)) < 500
        with copied(opened) as again:
            np.testing.assert_array_equal(again[1], images[1])


def test_one_opened_from_bytes_pickles_as_these(images):
    content = codec.compress(images[:3], model=TINY)
    opened = codec.CompressedImages(content, "x", model=TINY)
    np.testing.assert_array_equal(copied(opened).read(), images[:3])


def test_files_from_a_pipe(images, tmp_path):
    content = codec.compress(images[:3], model=TINY)
    for sent in (content, b"", b"hello"):
        pipe = tmp_path / f"pipe{len(sent)}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(sent,))
        writer.start()
        if sent == content:
            with codec.open(pipe, model=TINY) as opened:
                np.testing.assert_array_equal(opened.read(), images[:3])
        else:
            with pytest.raises(UserError, match="it is empty|it lacks"):
                codec.open(pipe)
        writer.join()
    with pytest.raises(UserError, match="it lacks"):
        codec.open("/dev/zero")

"""The command line, run as users run it."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from codec_models import TINY, PoolingAutoencoder, golden_images
from PIL import Image

import emnist_jax


@pytest.fixture
def model():
    return TINY


@pytest.fixture(scope="module")
def images(images):
    """uint8 [64, 10, 10, 1]: the middle of the blobs, quickly coded."""
    return images[:, 9:19, 9:19]


def test_the_whole_way(run, model, images, tmp_path):
    np.save("images.npy", images[:30])
    flag = f"--model={model}"
    code, out, _ = run("compress", "images.npy", "a.ejx", flag, "--block_images=8")
    assert code == 0 and "bits per pixel" in out
    assert run("decompress", "a.ejx", "b.npy", flag)[0] == 0
    np.testing.assert_array_equal(np.load("b.npy"), images[:30])
    assert run("decompress", "a.ejx", "b.npy", flag, "--index=7")[0] == 0
    np.testing.assert_array_equal(np.load("b.npy"), images[7:8])
    assert run("decompress", "a.ejx", "b.npy", flag, "--range=6:17")[0] == 0
    np.testing.assert_array_equal(np.load("b.npy"), images[6:17])
    code, out, _ = run("info", "a.ejx")
    assert code == 0 and "30 of 10x10" in out and "lossless" in out
    assert run("verify", "a.ejx", flag)[0] == 0
    code, out, _ = run("verify", "a.ejx", "images.npy", flag)
    assert code == 0 and "every pixel is that of images.npy" in out
    np.save("other.npy", images[1:31])
    code, _, err = run("verify", "a.ejx", "other.npy", flag)
    assert code == 2 and "pixels differ" in err


def test_near_lossless(run, model, images):
    np.save("images.npy", images[:6])
    flags = f"--model={model}", "--mode=near-lossless", "--max_error=4"
    assert run("compress", "images.npy", "a.ejx", *flags)[0] == 0
    code, out, _ = run("verify", "a.ejx", "images.npy", flags[0])
    assert code == 0 and "none of images.npy is off by more than 4" in out
    assert "max_error       4" in run("info", "a.ejx")[1]


def test_latent(run, monkeypatch, tmp_path):
    monkeypatch.setattr(emnist_jax, "load_run", lambda *_, **__: PoolingAutoencoder())
    np.save("images.npy", golden_images()[:9])
    flag = "--run=here"
    assert run("compress", "images.npy", "a.ejx", "--mode=latent", flag)[0] == 0
    assert run("decompress", "a.ejx", "b.npy", flag)[0] == 0
    assert np.load("b.npy").shape == (9, 28, 28)
    assert run("verify", "a.ejx", "images.npy", flag)[0] == 0
    assert "bits            8" in run("info", "a.ejx")[1]


def test_every_kind_of_input(run, model, images, tmp_path):
    plain = images[:5, ..., 0]
    np.save("a.npy", plain)
    np.savez("a.npz", images=plain, labels=np.arange(5))
    idx = b"\0\0\x08\x03" + np.array(plain.shape, ">u4").tobytes() + plain.tobytes()
    (tmp_path / "a.idx").write_bytes(idx)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx))
    (tmp_path / "folder").mkdir()
    for index, image in enumerate(plain):
        Image.fromarray(image).save(f"folder/{index + 8}.png")  # 8, 9, 10, ...
    for source in ("a.npy", "a.npz", "a.idx", "a.gz", "folder"):
        code, _, err = run("compress", source, "a.ejx", f"--model={model}")
        assert code == 0, err
        assert run("verify", "a.ejx", "a.npy", f"--model={model}")[0] == 0


def test_data_sets_by_name(run, model):
    assert run("compress", "glyphs", "a.ejx", "--split=what")[0] == 2
    code, out, _ = run("compress", "emnist/nothing", "a.ejx")
    assert code == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("compress", "nowhere.npy", "a.ejx"), "nowhere.npy"),
        (("compress", "text", "a.ejx"), "text is no image file"),
        (("compress", "floats.npy", "a.ejx"), "whole numbers"),
        (("compress", "two.npz", "a.ejx"), "choose one: two.npz:a"),
        (("compress", "empty", "a.ejx"), "holds no pictures"),
        (("compress", "images.npy", "a.ejx", "--model=text"), "no pixel model"),
        (("decompress", "text", "b.npy"), "no compressed image file"),
        (("decompress", "nowhere", "b.npy"), "cannot read nowhere"),
        (("decompress", "a.ejx", "b.npy", "--index=3"), "--index=3 is out of range"),
        (("decompress", "a.ejx", "b.npy", "--range=2"), "--range=2"),
        (("decompress", "a.ejx", "b.npy", "--index=0", "--range=0:2"), "one of them"),
        (("decompress", "a.ejx", "b.npy", "--range=2:9"), "--range=2:9"),
        (("decompress", "a.ejx", "b.npy", "--run=nowhere"), "nowhere"),
        (("info", "text"), "no compressed image file"),
        (("verify", "a.ejx", "more.npy"), "holds"),
        (("train", "images.npy", "m", "--max_error=128"), "--max_error=128"),
        (("train", "images.npy", "m", "--max_error=2"), "needs --start"),
        (("train", "images.npy", "m", "--batch_size=3"), "--batch_size=3"),
        (
            ("train", "images.npy", "m", "--start=fast-1", "--width=64"),
            "--width=64: is less than that of --start=fast-1; give at least 128",
        ),
        (("compress", "images.npy", "b.ejx", "--bits=9"), "--bits=9 is out of range"),
    ],
)
def test_mistakes_get_one_line(run, model, images, tmp_path, arguments, problem):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    np.save("images.npy", images[:3])
    np.save("more.npy", images[:4])
    np.save("floats.npy", images[:2] / 256)
    np.savez("two.npz", a=images, b=images)
    run("compress", "images.npy", "a.ejx", f"--model={model}", "--embed_model")
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and problem in err


@pytest.mark.long
def test_training_makes_a_model_that_works(run, images):
    np.save("images.npy", images)
    sizes = "--width=24", "--blocks=1", "--fine_width=16", "--gate_width=8"
    code, out, err = run(
        "train", "images.npy", "m.ejm", "--steps=1", "--batch_size=256", *sizes
    )
    assert code == 0 and "bits per pixel on held-out images" in out, err
    assert f"m.ejm: {os.path.getsize('m.ejm'):,} bytes, " in out
    assert out.endswith("emnist-jax codec compress IMAGES FILE.ejx --model=m.ejm\n")
    assert run("compress", "images.npy", "a.ejx", "--model=m.ejm")[0] == 0
    assert run("verify", "a.ejx", "images.npy", "--model=m.ejm")[0] == 0


def test_help():
    done = subprocess.run(
        [sys.executable, "-m", "emnist_jax.codec", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("compress", "decompress", "info", "verify", "join", "train"):
        assert name in done.stdout

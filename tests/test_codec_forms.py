"""Commands of the codec beside compression itself: forms, names, joining, advice."""

import io
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from codec_models import TINY, PoolingAutoencoder, golden_images
from PIL import Image

import emnist_jax
from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, mapping
from emnist_jax.codec.commands import compress as compressing

IMAGES = golden_images()[:12, 4:16, 4:16]
NAMES = [f"{'ab'[i % 2]}/{i}.jpg" for i in range(12)]
LABELS = np.arange(12) % 2
FLAG = f"--model={TINY}"


@pytest.fixture
def file(run):
    """A file with labels and names."""
    codec.compress_file("a.ejx", IMAGES, model=TINY, labels=LABELS, names=NAMES)


def test_pictures_come_back_as_a_folder(run, file):
    os.mkdir("empty")
    for out in ("new/", "empty"):
        code, _, err = run("decompress", "a.ejx", out, FLAG, "--range=2:9")
        assert code == 0, err
        for index in range(2, 9):
            with Image.open(f"{out}/{NAMES[index]}.png") as found:
                np.testing.assert_array_equal(np.asarray(found), IMAGES[index])
        table = pathlib.Path(out, "labels.csv").read_text().splitlines()
        assert table[:2] == ["name,label", "a/2.jpg.png,0"] and len(table) == 8


@pytest.mark.parametrize("out", ["full", "full/"])
def test_a_folder_with_something_in_it_stays(run, file, out):
    os.mkdir("full")
    open("full/mine", "w").close()
    code, _, err = run("decompress", "a.ejx", out, FLAG)
    assert (
        code == 2 and "something else in it" in err and os.listdir("full") == ["mine"]
    )


def test_pictures_come_back_as_a_zip(run):
    codec.compress_file("a.ejx", IMAGES, model=TINY)  # without names: numbers
    assert run("decompress", "a.ejx", "b.zip", FLAG)[0] == 0
    with zipfile.ZipFile("b.zip") as archive:
        assert archive.namelist() == [f"{i:02}.png" for i in range(12)]
        found = Image.open(io.BytesIO(archive.read("11.png")))
    np.testing.assert_array_equal(np.asarray(found), IMAGES[11])


def test_arrays_come_back_with_labels_and_names(run, file):
    assert run("decompress", "a.ejx", "b.npz", FLAG)[0] == 0
    with np.load("b.npz") as found:
        np.testing.assert_array_equal(found["images"], IMAGES)
        np.testing.assert_array_equal(found["labels"], LABELS)
        assert found["names"].tolist() == NAMES
    _, out, _ = run("decompress", "a.ejx", "b.npy", FLAG)
    assert "labels and names go into" in out
    _, out, _ = run("info", "a.ejx")
    assert "labels          kept\nnames           kept" in out


def test_labels_and_names_are_kept_on_request(run):
    np.savez("a.npz", images=IMAGES, labels=LABELS)
    for flags, labels in (((), None), (("--keep",), LABELS)):
        assert run("compress", "a.npz", "a.ejx", FLAG, *flags)[0] == 0
        with codec.open("a.ejx", model=TINY) as opened:
            np.testing.assert_array_equal(opened.labels, labels)
    np.save("a.npy", IMAGES)
    code, _, err = run("compress", "a.npy", "a.ejx", FLAG, "--keep")
    assert code == 2 and "neither labels nor names" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "a.npy", "a.png"),
        ("compress", "a.npy", "b.npy"),
        ("decompress", "a.ejx", "b.PNG"),
        ("decompress", "a.ejx", "b.ejx"),
        ("train", "a.npy", "m.ejx"),
        ("join", "a.ejx", "b.npz"),
    ],
)
def test_endings_that_promise_another_form(run, file, arguments):
    code, _, err = run(*arguments)
    assert code == 2 and "promises another form" in err and err.count("\n") == 1
    assert os.listdir() == ["a.ejx"]


def test_standard_input_and_output(run, tmp_path):
    np.save("a.npy", IMAGES)
    call = [sys.executable, "-m", "emnist_jax.codec"]
    options = {"capture_output": True, "cwd": tmp_path, "check": True}
    made = subprocess.run([*call, "compress", "a.npy", "-", FLAG], **options)
    assert made.stdout == codec.compress(IMAGES, model=TINY)
    assert b"bits per pixel" in made.stderr
    back = subprocess.run(
        [*call, "decompress", "-", "-", FLAG], input=made.stdout, **options
    )
    np.testing.assert_array_equal(np.load(io.BytesIO(back.stdout)), IMAGES)
    assert os.listdir() == ["a.npy"]


def test_nothing_is_written_to_a_terminal(run, file, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, _, err = run("decompress", "a.ejx", "-", FLAG)
    assert code == 2 and "is a terminal" in err


def test_files_join_without_decoding(run, monkeypatch):
    for name, first, last, size in (("a", 0, 5, 5), ("b", 5, 11, 3), ("c", 11, 12, 1)):
        codec.compress_file(
            f"{name}.ejx",
            IMAGES[first:last],
            model=TINY,
            embed_model=name != "a",
            block_images=size,
            labels=LABELS[first:last],
            names=NAMES[first:last],
        )
    code, out, err = run("join", "a.ejx", "b.ejx", "c.ejx", "all.ejx")
    assert code == 0 and "12 images" in out, err
    with codec.open("all.ejx") as opened:
        np.testing.assert_array_equal(opened.read(), IMAGES)
        np.testing.assert_array_equal(opened.read(4, 9), IMAGES[4:9])
        np.testing.assert_array_equal(opened[6], IMAGES[6])
        assert [block.images for block in opened.head.blocks] == [5, 3, 3, 1]
        assert opened.labels.tolist() == LABELS.tolist() and opened.names == NAMES
    code, _, err = run("join", "a.ejx", "a.ejx", "b2.ejx")
    assert code == 2 and "there twice" in err
    code, _, err = run("join", "a.ejx", "b.ejx", "b.ejx")
    assert code == 2 and "is the input file itself" in err


def test_equal_blocks_join_to_version_1(run):
    codec.compress_file("a.ejx", IMAGES[:8], model=TINY, block_images=4)
    codec.compress_file("b.ejx", IMAGES[8:], model=TINY, block_images=4, labels=[1] * 4)
    codec.join("all.ejx", "a.ejx", "b.ejx")
    codec.compress_file("c.ejx", IMAGES, model=TINY, block_images=4)
    joined, whole = (pathlib.Path(name).read_bytes() for name in ("all.ejx", "c.ejx"))
    assert joined == whole


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model": "fast"}, "model"),
        ({"mode": "near-lossless", "max_error": 2}, "mode"),
        ({"invert": True}, "inversion"),
        ({"images": IMAGES[..., :11]}, "size of images 12x11 and 12x12"),
        ({"images": IMAGES[..., None]}, "shape"),
    ],
)
def test_files_that_differ_do_not_join(run, options, problem):
    options = {"images": IMAGES, "model": TINY, **options}
    codec.compress_file("a.ejx", IMAGES[:0], model=TINY)
    codec.compress_file("b.ejx", options.pop("images")[:0], **options)
    with pytest.raises(UserError, match=f"cannot be joined: {problem}"):
        codec.join("all.ejx", "a.ejx", "b.ejx")


def test_verify_says_what_is_promised(run, monkeypatch):
    np.save("a.npy", golden_images()[:3])
    monkeypatch.setattr(emnist_jax, "load_run", lambda *_, **__: PoolingAutoencoder())
    codec.compress_file(
        "a.ejx", np.load("a.npy"), mode="latent", run=PoolingAutoencoder()
    )
    code, out, _ = run("verify", "a.ejx", "a.npy", "--run=here")
    assert code == 0 and "nothing about pixels; their mean squared error" in out
    assert "difference" not in out


def test_black_ink_is_turned_and_comes_back(run):
    images = ~golden_images()[:12, 4:24, 4:24]
    np.save("a.npy", images)
    assert "--invert" in run("compress", "a.npy", "a.ejx", FLAG)[2]
    code, _, err = run("compress", "a.npy", "b.ejx", FLAG, "--invert")
    assert code == 0 and "--invert" not in err
    assert os.path.getsize("b.ejx") < os.path.getsize("a.ejx")
    assert run("decompress", "b.ejx", "b.npy", FLAG)[0] == 0
    np.testing.assert_array_equal(np.load("b.npy"), images)
    assert "inverted" in run("info", "b.ejx")[1]


def noise(side):
    return np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8)


@pytest.mark.parametrize(("side", "help"), [(8, "compress --train"), (130, "never")])
def test_blocks_unlike_the_model_are_named(run, side, help):
    np.save("a.npy", noise(side))
    code, _, err = run("compress", "a.npy", "a.ejx", FLAG)
    assert code == 0 and "1 of 1 blocks" in err and help in err
    assert "8.00 bits per pixel" in err or side == 130


def test_an_estimate_writes_nothing(run):
    np.save("a.npy", IMAGES)
    code, out, _ = run("compress", "a.npy", "a.ejx", FLAG, "--estimate")
    assert code == 0 and "estimated from 12 of 12 images" in out
    assert os.listdir() == ["a.npy"]
    head, _ = mapping.read_head(_write("b.ejx"))
    size = sum(block.length for block in head.blocks)
    assert f" {8 * size / IMAGES.size:.3f} bits per pixel" in out


def _write(path):
    codec.compress_file(path, IMAGES, model=TINY)
    return path


def test_small_files_do_not_pay_for_a_model(run):
    np.save("a.npy", IMAGES)
    code, _, err = run("compress", "a.npy", "a.ejx", "--train")
    assert code == 0 and "too small to pay for it" in err
    assert mapping.read_head("a.ejx")[0].model_length == 0
    for flags in (("--mode=near-lossless", "--max_error=1"), (FLAG,)):
        code, _, err = run("compress", "a.npy", "a.ejx", "--train", *flags)
        assert code == 2 and err.startswith("error: --train: needs")


@pytest.mark.parametrize("bits", [0.1, 9.0])
def test_a_trained_model_is_embedded_where_it_pays(run, monkeypatch, bits):
    def fit(images, arguments, path, folder):
        with open(TINY, "rb") as model, open(path, "wb") as file:
            file.write(model.read())
        return bits

    about = compressing.Estimate(12, 6.0, 5.0, 1.0)
    monkeypatch.setattr(compressing, "estimate", lambda *_: about)
    monkeypatch.setattr(compressing, "_fit", fit)  # training has tests of its own
    images = np.zeros((5000, 12, 12), np.uint8)
    images[:12] = IMAGES
    np.save("a.npy", images)
    code, out, err = run("compress", "a.npy", "a.ejx", "--train", "--block_images=5000")
    assert code == 0 and "bytes saved; it trains for 3 min" in out, err
    head, _ = mapping.read_head("a.ejx")
    assert bool(head.model_length) == (bits < 1)
    assert ("does not pay" in err) == (bits > 1)
    assert head.mode == container.LOSSLESS

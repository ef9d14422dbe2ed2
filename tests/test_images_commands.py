"""Every row of docs/data.md by the commands: codec, latents and settings of a run."""

import functools
import gzip
import io
import sys
import tarfile
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
import zarr
from codec_models import TINY
from PIL import Image

import emnist_jax
import emnist_jax.codec
from emnist_jax import latents
from emnist_jax.cli.errors import UserError
from emnist_jax.cli.flags import parse_config
from emnist_jax.codec import __main__ as command
from emnist_jax.config import compose
from emnist_jax.data import glyphs

IMAGES = glyphs.draw(np.arange(8), 7)[..., 0]  # upright, 28 x 28
FLAT = IMAGES.reshape(8, 784)
TURNED = IMAGES.swapaxes(1, 2)
NAMES = [f"set/{'ab'[n % 2]}/{n}.png" for n in range(8)]
CLASSES = np.r_[0:8:2, 1:8:2]  # pictures of class a, then of b


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(run_path):
    return emnist_jax.load_run(run_path)


@pytest.fixture
def encode(run, monkeypatch):
    """Calls the command of latents, whose run is loaded once."""
    monkeypatch.setattr(emnist_jax, "load_run", lambda *_, **__: run)

    def call(source):
        latents.main(["--run=here", f"--images={source}", "--out=l.npy"])
        return np.load("l.npy")

    return call


@pytest.fixture
def codec(monkeypatch):
    """Calls the codec's command."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["codec", *arguments, f"--model={TINY}"])
        command.main()

    return call


@functools.cache
def compressed(pixels, shape):
    images = np.frombuffer(pixels, np.uint8).reshape(shape)
    return emnist_jax.codec.compress(images, model=TINY)


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def png(image):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def save_idx(folder):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))


def save_parquet(folder):
    rows = [{"bytes": png(image), "path": None} for image in IMAGES]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), "train.parquet")


def save_csv(folder):
    np.savetxt("mnist_train.csv", np.column_stack([np.arange(8), FLAT]), "%d", ",")
    with zipfile.ZipFile("mnist.zip", "w") as archive:
        archive.write("mnist_train.csv")


def save_emnist(folder):
    for part in ("train", "test"):
        stem = folder / "raw" / f"emnist-letters-{part}"
        stem.parent.mkdir(exist_ok=True)
        stem.with_name(f"{stem.name}-images-idx3-ubyte").write_bytes(idx(TURNED))
        labels = idx(np.arange(1, 9))
        stem.with_name(f"{stem.name}-labels-idx1-ubyte").write_bytes(labels)


def save_matlab(folder):
    struct = {"images": TURNED.reshape(8, 784), "labels": np.arange(8)[:, None]}
    scipy.io.savemat(
        "emnist-digits.mat", {"dataset": {p: struct for p in ("train", "test")}}
    )


def save_tiff(folder):
    first, *others = map(Image.fromarray, IMAGES)
    first.save("pages.tif", save_all=True, append_images=others)


def save_pictures(folder):
    for name, image in zip(NAMES, IMAGES, strict=True):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(png(image))
    with zipfile.ZipFile("set.zip", "w") as archive, tarfile.open("s.tgz", "w:gz") as t:
        for name in NAMES:
            archive.write(name)
            t.add(name)


def save_colour(folder):
    np.savez("medmnist.npz", train_images=np.stack([IMAGES] * 3, axis=-1))


FORMS = {
    "npy": ("a.npy", lambda folder: np.save("a.npy", FLAT), IMAGES),
    "npz": ("medmnist.npz:train_images", save_colour, IMAGES),
    "idx": ("t10k-images-idx3-ubyte.gz", save_idx, IMAGES),
    "parquet": ("train.parquet", save_parquet, IMAGES),
    "zarr": ("a.zarr", lambda folder: zarr.create_array("a.zarr", data=IMAGES), IMAGES),
    "csv": ("mnist_train.csv", save_csv, IMAGES),
    "zipped_csv": ("mnist.zip", save_csv, IMAGES),
    "emnist": ("raw:letters", save_emnist, IMAGES),
    "matlab": ("emnist-digits.mat", save_matlab, IMAGES),
    "picture": ("pages.tif", save_tiff, IMAGES),
    "folder": ("set", save_pictures, IMAGES[CLASSES]),
    "zip": ("set.zip:set", save_pictures, IMAGES[CLASSES]),
    "tar": ("s.tgz", save_pictures, IMAGES),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_by_every_command(form, folder, run, encode, codec):
    source, save, images = FORMS[form]
    save(folder)
    codec("compress", source, "a.ejx")
    channels = (1,) * (form == "npz")  # come back where there were any
    content = compressed(images.tobytes(), images.shape + channels)
    assert (folder / "a.ejx").read_bytes() == content
    np.testing.assert_array_equal(encode(source), run.encode(images))
    chosen = compose.select(parse_config(["launch.py", f"--images={source}"], ""))
    for part in (chosen.whole_train, chosen.test):
        np.testing.assert_array_equal(part.images[..., 0], images[part.indices])


def test_floats_are_rounded_but_for_who_promises_them_back(run, encode, codec):
    np.save("a.npy", (FLAT + 0.3) / 256)
    rounded = np.round((IMAGES + 0.3) * (255 / 256)).astype(np.uint8)
    np.testing.assert_array_equal(encode("a.npy"), run.encode(rounded))
    chosen = compose.select(parse_config(["launch.py", "--images=a.npy"], ""))
    test = chosen.test
    np.testing.assert_array_equal(test.images[..., 0], rounded[test.indices])
    with pytest.raises(UserError, match="round them to 8 bits with --convert"):
        codec("compress", "a.npy", "a.ejx")


def test_standard_input_is_refused(encode, codec):
    with pytest.raises(UserError, match="^--images=-: standard input is not read"):
        compose.select(parse_config(["launch.py", "--images=-"], ""))
    with pytest.raises(UserError, match="-: standard input is not read"):
        encode("-")
    with pytest.raises(UserError, match="-: standard input is not read"):
        codec("compress", "-", "a.ejx")

"""`codec compress`, `decompress` and `verify` with zarr arrays, and foreign stores."""

import json
import pathlib
import pickle
import sys

import numpy as np
import pytest
import xarray
import zarr
from codec_models import TINY

import emnist_jax
from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import numcodecs_form, zarr_form, zarr_images

LABELS = np.arange(40) % 7
NAMES = [f"{i % 3}/{i}.png" for i in range(40)]


@pytest.fixture(scope="module")
def small(images):
    return images[:40, 10:16, 10:17, 0]


@pytest.fixture
def source(small, tmp_path):
    np.savez(tmp_path / "a.npz", images=small, labels=LABELS)
    return tmp_path / "a.npz"


def test_there_and_back(run, source, small):
    code, out, _ = run("compress", source, "a.zarr", f"--model={TINY}")
    assert code == 0 and "a.zarr: 40 images" in out
    np.testing.assert_array_equal(zarr.open("a.zarr")[10:20], small[10:20])
    assert run("decompress", "a.zarr", "b.npy", "--range=5:17")[0] == 0
    np.testing.assert_array_equal(np.load("b.npy"), small[5:17])
    code, out, _ = run("verify", "a.zarr", source)
    assert code == 0 and "all checksums match; every pixel is that of" in out
    np.save("other.npy", small[::-1])
    code, _, message = run("verify", "a.zarr", "other.npy")
    assert code == 2 and "pixels differ by up to" in message


def test_labels_and_names(run, source, small):
    code, _, message = run("compress", source, "k.zarr", "--keep", f"--model={TINY}")
    assert code == 0, message
    with xarray.open_zarr("k.zarr", consolidated=False) as data:
        np.testing.assert_array_equal(data.labels, LABELS)
        np.testing.assert_array_equal(data.images, small)
    zarr_images.write("n.zarr", small, labels=LABELS, names=NAMES, model=TINY)
    with xarray.open_zarr("n.zarr", consolidated=False) as data:
        assert data.names.values.tolist() == NAMES
    assert run("decompress", "n.zarr", "n.npz")[0] == 0
    with np.load("n.npz") as again:
        np.testing.assert_array_equal(again["images"], small)
        np.testing.assert_array_equal(again["labels"], LABELS)
        assert again["names"].tolist() == NAMES
    assert run("decompress", "n.zarr", "pictures/", "--range=4:6")[0] == 0
    found = [path.name for path in pathlib.Path("pictures").rglob("*.*")]
    assert sorted(found) == ["4.png", "5.png", "labels.csv"]


def test_options(run, source, small):
    options = ("--mode=near-lossless", "--max_error=3", f"--model={TINY}", "--invert")
    np.save("paper.npy", 255 - small[..., None])
    assert run("compress", "paper.npy", "n.zarr", *options)[0] == 0
    array = zarr.open("n.zarr")
    error = np.abs(array[:].astype(int) - (255 - small[..., None])).max()
    assert array.serializer.chunks.invert and 0 < error <= 3
    code, out, _ = run("verify", "n.zarr", "paper.npy")
    assert code == 0 and "no pixel off by more than 3" in out
    assert run("compress", source, "e.zarr", "--model=fast", "--embed_model")[0] == 0
    coder = zarr.open("e.zarr").serializer
    assert isinstance(coder.chunks.model, bytes)


def test_any_store_is_a_source_of_images(run, small, tmp_path):
    """Of any type and codec, like all other forms of images."""
    zarr_images.write("k.zarr", small, labels=LABELS, names=NAMES, model=TINY)
    again = emnist_jax.read_images("k.zarr")
    np.testing.assert_array_equal(again.images, small)
    np.testing.assert_array_equal(again.labels, LABELS)
    assert again.names == tuple(NAMES)
    assert run("compress", "k.zarr", "k.ejx", "--keep", f"--model={TINY}")[0] == 0
    with codec.open("k.ejx", model=TINY) as opened:
        np.testing.assert_array_equal(opened[:], small)
        assert opened.names == NAMES and opened.labels.tolist() == LABELS.tolist()
    group = zarr.open("k.zarr")
    group.create_array(
        "other", data=small[:9, None] / np.float32(255), chunks=(4, 1, 6, 7)
    )
    for images in ("other", "none"):
        code, _, error = run(
            "compress", f"k.zarr:{images}", f"{images}.zarr", "--convert"
        )
        assert code == (0 if images == "other" else 2), error
    np.testing.assert_array_equal(zarr.open("other.zarr")[..., 0], small[:9])
    assert "cannot read k.zarr:none" in error


def snapshot(place):
    return {p: p.is_file() and p.read_bytes() for p in place.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.npz", "taken.zarr"), "taken.zarr: is a folder with something else in it"),
        (("a.npz", "file.zarr"), "file.zarr: is not a folder; remove it"),
        (("a.npz", "link.zarr"), "link.zarr: is not a folder; remove it"),
        (("a.npz", "new.zarr", "--mode=latent"), "--mode=latent: zarr arrays keep pix"),
        (("a.npz", "new.zarr", "--max_error=3"), "max_error=3 needs mode=near-lossl"),
        (("other.npy", "new.zarr", "--keep"), "has neither labels nor names"),
    ],
)
def test_calls_that_are_refused(arguments, message, run, source, small, tmp_path):
    (tmp_path / "taken.zarr").mkdir()
    (tmp_path / "taken.zarr" / "zarr.json").write_text("the user's")
    (tmp_path / "file.zarr").write_text("the user's")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "taken.zarr")
    np.save("other.npy", small)
    before = snapshot(tmp_path)
    code, _, error = run("compress", *arguments)
    assert code == 2 and message in error and error.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_nothing_is_left_of_an_array_that_fails(source, small, tmp_path, monkeypatch):
    monkeypatch.setattr(zarr, "create_group", None)
    before = snapshot(tmp_path)
    with pytest.raises(TypeError):
        zarr_images.write(tmp_path / "a.zarr", small, labels=range(40), model=TINY)
    assert snapshot(tmp_path) == before
    (tmp_path / "empty.zarr").mkdir()
    zarr_images.write(tmp_path / "empty.zarr", small, model=TINY)
    np.testing.assert_array_equal(codec.open(tmp_path / "empty.zarr")[3:], small[3:])


def test_without_zarr(run, source, small, monkeypatch):
    zarr_images.write("a.zarr", small, model=TINY)
    monkeypatch.setitem(sys.modules, "zarr", None)
    monkeypatch.setitem(sys.modules, "emnist_jax.codec.zarr_images", None)
    monkeypatch.delattr("emnist_jax.codec.zarr_images")
    for call in (
        ("compress", source, "b.zarr"),
        ("decompress", "a.zarr", "b.npy"),
        ("compress", "a.zarr", "b.ejx"),
    ):
        code, _, error = run(*call)
        assert code == 2 and "pip install 'emnist-jax[zarr]'" in error


def test_arrays_of_others(small, tmp_path):
    """Any codec, zarr 2's format and shards are read."""
    shards = {"chunks": (4, 6, 7), "shards": (20, 6, 7), "compressors": None}
    made = {
        "blosc": {"compressors": zarr.codecs.BloscCodec()},
        "two": {"zarr_format": 2, "compressors": numcodecs_form.Ejx(model=TINY)},
        "shards": shards | {"serializer": zarr_form.Ejx(model=TINY, max_error=2)},
    }
    for name, options in made.items():
        zarr.create_array(tmp_path / name, data=small, **options)
        with codec.open(tmp_path / name) as opened:
            error = np.abs(np.asarray(opened).astype(int) - small).max()
            assert opened.promise == ((1, 2) if name == "shards" else (0, 0))
            assert error <= opened.promise[1] and opened.labels is None
            for index in (7, [[3, 1], [39, 1]], slice(30, 2, -5), (..., 2)):
                np.testing.assert_array_equal(opened[index], opened.read()[index])
            again = pickle.loads(pickle.dumps(opened))
            np.testing.assert_array_equal(again[4], opened[4])


def labelled(folder, small, name, **options):
    zarr_images.write(folder, small, labels=LABELS, model=TINY)
    group = zarr.open(folder)
    del group[name]
    group.create_array(name, **options)


def damaged(folder, small):
    zarr_images.write(folder, small, model=TINY)
    (folder / "zarr.json").write_text("{")


def claims(folder, small):
    zarr_images.write(folder, small[:1], model=TINY)
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["shape"][0] = 10**12
    (folder / "zarr.json").write_text(json.dumps(metadata))


def unsafe(folder, small):
    zarr_images.write(folder, small, names=list(map(str, range(40))), model=TINY)
    zarr.open(folder)["names"][3] = "../x"


FOREIGN = {
    "broken metadata": (damaged, "is no zarr array of images"),
    "too many images": (
        claims,
        "bytes claim to hold uint8 (1000000000000, 6, 7), over 4096",
    ),
    "unsafe names": (unsafe, "the name '../x' is no relative path"),
    "another type": (
        lambda folder, small: zarr.create_array(folder, data=small.astype("f4")),
        "float32 (40, 6, 7) are no images",
    ),
    "no images": (
        lambda folder, small: zarr.create_group(folder),
        "is no zarr array of images",
    ),
    "too few labels": (
        lambda folder, small: labelled(folder, small, "labels", shape=3, dtype="i8"),
        "labels is int64 (3,): not one for each image",
    ),
    "labels of no type": (
        lambda folder, small: labelled(folder, small, "labels", shape=40, dtype="f8"),
        "labels is float64 (40,): not one for each image",
    ),
}


@pytest.mark.parametrize(("make", "message"), FOREIGN.values(), ids=FOREIGN.keys())
def test_stores_that_are_foreign(make, message, small, tmp_path):
    make(tmp_path / "a", small)
    with pytest.raises(UserError) as raised:
        codec.open(tmp_path / "a")
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).count(str(tmp_path)) == 1

"""Files of images that are damaged, hostile, or of names that people give them."""

import gzip
import pathlib
import re
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image

import emnist_jax
from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive as data_archive
from emnist_jax.data import matlab
from emnist_jax.data import parquet as data_parquet
from emnist_jax.storage.arrays import open_array, read_archive


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_images(source):
    return emnist_jax.read_images(source).images


def idx(shape, pixels=b""):
    return b"\0\0\x08\x03" + np.array(shape, ">u4").tobytes() + pixels


def png(name, value=7, size=(4, 5)):
    Image.fromarray(np.full(size, value, np.uint8)).save(name, format="PNG")


def test_a_folder_with_odd_names(capsys):
    for value, name in enumerate(["2.png", "10.PNG", "a1²3.png", "a.Png", "a²4.png"]):
        png(name, value)
    pathlib.Path("notes.txt").write_text("")
    pathlib.Path("b.gif").write_text("")
    assert read_images(".")[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    printed = capsys.readouterr().err
    assert "2 of 7 files" in printed and "(b.gif, notes.txt)" in printed


def test_endings_in_capitals():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    with open("A.NPY", "wb") as file:
        np.save(file, images)
    with open("A.NPZ", "wb") as file:
        np.savez_compressed(file, images=images)
    for name in ("A.NPY", "A.NPZ"):
        np.testing.assert_array_equal(read_images(name), images)


def save_npz(path, images):
    np.savez_compressed(path, images=images)


def save_gz(path, images):
    pathlib.Path(path).write_bytes(gzip.compress(idx(images.shape, images.tobytes())))


def save_png(path, images):
    pathlib.Path(path).mkdir(exist_ok=True)
    png(f"{path}/0.png", 9)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.npz", save_npz),
        ("a.npy", np.save),
        ("a.gz", save_gz),
        ("folder", save_png),
    ],
)
def test_every_flipped_byte_is_one_line(name, save):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4)).astype(np.uint8)
    save(name, images)
    path = pathlib.Path(name) / "0.png" if name == "folder" else pathlib.Path(name)
    content = path.read_bytes()
    for at in range(len(content)):
        for flip in (1, 128):
            damaged = bytearray(content)
            damaged[at] ^= flip
            path.write_bytes(damaged)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read_images(name)
            except UserError as error:
                assert name in str(error)


def npz_bomb(path, shape, zeros):
    """An archive whose array claims `shape`, and holds `zeros` bytes."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(zeros >> 20):
            file.write(bytes(1 << 20))


def png_bomb(path, side):
    """A PNG that claims side x side pixels and has none."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    sides = side.to_bytes(4, "big") * 2
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", sides + b"\x08\0\0\0\0")
    content += chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    pathlib.Path(path).mkdir()
    pathlib.Path(path, "0.png").write_bytes(content)


def refused_in_little_memory(name):
    tracemalloc.start()
    with pytest.raises(UserError) as caught:
        read_images(name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20, name
    assert name in str(caught.value) and len(str(caught.value)) < 200
    return str(caught.value)


def test_small_files_that_claim_much_take_little_memory():
    npz_bomb("claims.npz", (10**7, 28, 28), 1 << 20)
    npz_bomb("holds.npz", (2, 28, 28), 64 << 20)  # and reading stops after these
    pathlib.Path("plain.idx").write_bytes(idx((10**7, 28, 28), bytes(784)))
    pathlib.Path("claims.gz").write_bytes(
        gzip.compress(idx((10**7, 28, 28), bytes(1 << 20)))
    )
    pathlib.Path("holds.gz").write_bytes(
        gzip.compress(idx((2, 28, 28), bytes(64 << 20)))
    )
    png_bomb("claims", 13_000)  # 169 megapixels, fewer than Pillow refuses
    long_header = b"\x93NUMPY\x02\0" + (2**31).to_bytes(4, "little") + bytes(1 << 20)
    with zipfile.ZipFile("header.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", long_header)
    pathlib.Path("header.npy").write_bytes(long_header)
    np.save("huge.npy", np.zeros((1, 28, 28), np.uint8))
    huge = pathlib.Path("huge.npy").read_bytes().replace(b"(1, 28, 28)", b"(9**9,28,1)")
    pathlib.Path("huge.npy").write_bytes(huge.replace(b"9**9", b"9999"))
    names = "claims.npz holds.npz plain.idx claims.gz holds.gz claims header.npz"
    for name in [*names.split(), "header.npy", "huge.npy"]:
        refused_in_little_memory(name)


def test_archives_packed_otherwise_or_lacking_an_array():
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", b"")
    with pytest.raises(UserError, match="packed by method"):
        read_archive("a.npz")
    np.savez("b.npz", a=np.asfortranarray(np.eye(3)[:2]), text=np.array(["x", "yz"]))
    found = read_archive("b.npz")
    np.testing.assert_array_equal(found["a"], np.eye(3)[:2])
    assert found["text"].tolist() == ["x", "yz"]
    with pytest.raises(UserError, match="no array 'c'"):
        read_archive("b.npz", lambda _: ["c"])


def test_arrays_in_either_order_are_mapped():
    for array in (np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T):
        np.save("a.npy", array)
        found = open_array("a.npy")
        assert isinstance(found, np.memmap) and not found.flags.writeable
        np.testing.assert_array_equal(found, array)


def test_emnist_that_claims_much(monkeypatch):
    zeros = {"images": np.zeros((20_000, 784), np.uint8), "labels": np.zeros(20_000)}
    part = {"dataset": {"test": zeros, "train": zeros}}
    scipy.io.savemat("emnist-digits.mat", part, do_compression=True)
    with zipfile.ZipFile("matlab.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("emnist-digits.mat")
    pathlib.Path("raw").mkdir()
    packed = gzip.compress(idx((2000, 28, 28), bytes(2000 * 784)))
    pathlib.Path("raw/emnist-digits-test-images-idx3-ubyte.gz").write_bytes(packed)
    with zipfile.ZipFile("kaggle.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("emnist-digits-test.csv", f"{'0,' * 784}0\n" * 8000)
    monkeypatch.setattr(data_archive, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(matlab, "MOST_BYTES", 1 << 20)
    for name in ("emnist-digits.mat", "matlab.zip", "kaggle.zip", "raw"):
        assert re.search("more than|claims", refused_in_little_memory(name))
    monkeypatch.setattr(data_archive, "MOST_BYTES", 4 << 20)  # 16 MiB of CSV
    with pytest.raises(UserError, match="more than EMNIST"):
        read_images("kaggle.zip")


def test_parquet_repeats_nothing_in_memory(monkeypatch):
    row = pathlib.Path("row.png")
    png(row, size=(8, 8))
    large = row.read_bytes() + bytes(1 << 17)  # what follows a picture is not looked at
    words = {"a": "cat", "b": "x" * 2000}
    for name, word in words.items():
        table = {"image": pyarrow.array([0] * 400), "label": pyarrow.array([0] * 400)}
        for column, value in (("image", large), ("label", word)):
            table[column] = pyarrow.DictionaryArray.from_arrays(table[column], [value])
        table = pyarrow.table(table)
        options = {"dictionary_pagesize_limit": 1 << 20, "store_schema": False}
        pyarrow.parquet.write_table(table, f"{name}.parquet", **options)
    monkeypatch.setattr(data_parquet, "_AT_ONCE", 1 << 20)
    usual = pyarrow.default_memory_pool()
    pool = pyarrow.proxy_memory_pool(usual)
    try:
        pyarrow.set_memory_pool(pool)
        found = emnist_jax.read_images("a.parquet")
    finally:
        pyarrow.set_memory_pool(usual)
    assert 1 << 17 < pool.max_memory() < 4 << 20  # 50 MiB where it is repeated
    assert found.images.shape == (400, 8, 8) and found.class_names == ("cat",)
    with pytest.raises(UserError, match="b.parquet: it has a label of over 1024"):
        read_images("b.parquet")
    zeros = np.zeros([100, 1 << 17], np.uint8)
    rows = pyarrow.FixedSizeListArray.from_arrays(zeros.reshape(-1), 1 << 17)
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), "c.parquet")
    monkeypatch.setattr(data_parquet, "_SMALLEST", 1)
    with pytest.raises(UserError, match="c.parquet: it claims more than fits in it"):
        read_images("c.parquet")

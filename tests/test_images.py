"""One reader for every form in which people hold images (docs/data.md)."""

import gzip
import io
import mmap
import tarfile
import tempfile
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from image_tools import idx, read, refused, same, save_pictures
from PIL import Image

from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.data import orientation, pictures
from emnist_jax.storage import spill


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_arrays(drawn):
    for array in (drawn, drawn[..., None], drawn.reshape(60, 784), drawn[:, None]):
        np.save("a.npy", array)
        assert isinstance(same("a.npy", drawn).images, np.memmap)
    for array in ((drawn / 255).astype("f2"), drawn / np.float32(255), drawn / 255.0):
        np.save("a.npy", array)
        same("a.npy", drawn)
    np.save("a.npy", np.repeat(drawn[..., None], 3, axis=-1))
    same("a.npy", drawn)
    np.save("a.npy", drawn.astype(np.int64))
    refused("a.npy", "--value_range=LOW:HIGH")
    same("a.npy", drawn, value_range="0:255")
    np.save("a.npy", drawn / 127.5 - 1)
    refused("a.npy", "expected uint8 in 0..255 or floats in 0..1; name the range")
    same("a.npy", drawn, value_range=(-1, 1))
    np.save("a.npy", drawn / 256)
    refused("a.npy", "round them to 8 bits with --convert")
    same("a.npy", np.round(drawn * (255 / 256)), convert=True)


def test_archives_of_arrays(drawn):
    np.savez("m.npz", train_images=drawn, train_labels=np.arange(60)[:, None] % 5)
    refused("m.npz", "choose one: m.npz:train_images")
    refused("m.npz:train_image", "choose one: m.npz:train_images")
    found = same("m.npz:train_images", drawn)
    assert found.labels.tolist() == [n % 5 for n in range(60)]
    assert found.class_names == ("0", "1", "2", "3", "4")
    same("m.npz", drawn, split="train")


def test_idx(drawn, folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(drawn))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(60) % 10))
    assert same("t10k-images-idx3-ubyte", drawn).labels[:11].tolist()[-1] == 0
    (folder / "a.gz").write_bytes(gzip.compress(idx(drawn)))
    assert same("a.gz", drawn).labels is None


def is_mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def test_large_sources_are_mapped_or_lie_in_a_temporary_file(
    drawn, folder, monkeypatch
):
    (folder / "a.idx").write_bytes(idx(drawn))
    assert is_mapped(same("a.idx", drawn).images)
    (folder / "b.idx").write_bytes(idx(drawn) + b"x")
    refused("b.idx", "it is damaged")
    (folder / "a.gz").write_bytes(gzip.compress(idx(drawn)))
    np.savez("stored.npz", drawn)
    np.savez_compressed("deflated.npz", np.asfortranarray(drawn))
    save_pictures(folder, drawn[:6], [f"set/{n}.png" for n in range(6)])
    monkeypatch.setattr(pictures, "_AT_ONCE", 2)
    sources = {"a.gz": 60, "stored.npz": 60, "deflated.npz": 60, "set": 6}
    for limit in (1 << 28, 3000):
        monkeypatch.setattr(spill, "_IN_MEMORY", limit)
        for source, count in sources.items():
            images = same(source, drawn[:count]).images
            assert is_mapped(images) == (limit == 3000)
            assert not images.flags.writeable
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "nowhere"))
    refused("set", f"set: cannot keep 3,136 bytes in {folder}/nowhere: No such file")


def test_folders_zip_and_tar(drawn, folder):
    names = [f"set/{'ab'[n // 3]}/{n + 8}.{'PNG' if n else 'png'}" for n in range(6)]
    save_pictures(folder, drawn[:6], names)
    found = same("set", drawn[:6])
    assert found.names == tuple(name.removeprefix("set/") for name in names)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.class_names == ("a", "b")
    with zipfile.ZipFile("set.zip", "w") as archive, tarfile.open("s.tgz", "w:gz") as t:
        for name in names:
            archive.write(name)
            t.add(name)
    for source in ("set.zip", "s.tgz"):
        found = same(source, drawn[:6])
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    same("set.zip:set/b", drawn[3:6])
    same("s.tgz:set/b", drawn[3:6])
    assert same("set/a", drawn[:3]).labels is None
    assert sorted(p.name for p in folder.iterdir()) == ["s.tgz", "set", "set.zip"]


def picture(mode, gray):
    """A picture of `mode` that shows exactly the gray values."""
    image = Image.fromarray(gray)
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257)
    if mode == "1":
        return image.convert("1", dither=Image.Dither.NONE)
    if mode == "P":
        return image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_pictures_that_lose_nothing(mode, drawn):
    gray = drawn[0] // 128 * 255
    picture(mode, gray).save("a.png")
    same("a.png", gray[None])


def test_pictures_that_would_lose_something(drawn):
    gray = drawn[0]
    Image.fromarray(gray.astype(np.uint16) * 256 + 3).save("deep.png")
    refused("deep.png", "16 bits do not fit in 8; round them with --convert")
    read("deep.png", convert=True)
    same("deep.png", np.round((gray * 256.0 + 3) / 257)[None], value_range="0:65535")
    colour = np.stack([gray, gray, gray // 2], axis=-1)
    Image.fromarray(colour).save("colour.png")
    refused("colour.png", "is in colour")
    same(
        "colour.png",
        np.asarray(Image.fromarray(colour).convert("L"))[None],
        convert=True,
    )
    clear = np.stack([gray, gray, gray, np.full_like(gray, 0)], axis=-1)
    Image.fromarray(clear).save("clear.png")
    refused("clear.png", "is transparent")
    same("clear.png", np.full((1, 28, 28), 255), convert=True)
    Image.fromarray(gray).save("a.jpg", quality=100)
    assert np.abs(read("a.jpg").images[0].astype(int) - gray).max() < 9
    pages = [Image.fromarray(image) for image in drawn[:3]]
    pages[0].save("a.tif", save_all=True, append_images=pages[1:])
    assert same("a.tif", drawn[:3]).names == ("a.tif", "a.tif#1", "a.tif#2")


def test_sizes_change_only_when_asked(drawn, folder):
    save_pictures(folder, [drawn[0], drawn[1][:20]], ["d/a.png", "d/b.png"])
    refused("d", "28x28 and of 20x28 pixels; bring them to one size with --resize=SIDE")
    found = read("d", resize=28).images
    np.testing.assert_array_equal(found[0], drawn[0])
    np.testing.assert_array_equal(found[1, 4:24], drawn[1][:20])
    assert read("d", resize=32).images.shape == (2, 32, 32)


def test_white_paper_and_transposed_characters_are_said(drawn, capsys):
    np.save("a.npy", drawn)
    read("a.npy")
    assert capsys.readouterr().err == ""
    np.save("white.npy", 255 - drawn)
    read("white.npy")
    assert "dark ink on white paper" in capsys.readouterr().err
    same("white.npy", drawn, invert=True)
    np.save("turned.npy", drawn.swapaxes(1, 2))
    read("turned.npy")
    assert "--transposed=yes" in capsys.readouterr().err
    same("turned.npy", drawn, transposed="yes")
    read("turned.npy", transposed=False)
    assert capsys.readouterr().err == ""
    assert not orientation.looks_transposed(drawn[:, :20])


def test_what_is_no_image(folder):
    (folder / "text").write_text("hello")
    refused("text", "no image file that is known")
    refused("nowhere", "cannot read nowhere: No such file")
    refused("-", "standard input is not read")
    np.save("a.npy", np.zeros((3, 28)))
    refused("a.npy", "shape (3, 28), expected [N, height, width]")
    refused("a.npy", "reader=what is unknown: give dataset, npy", reader="what")
    refused("a.npy", "cannot read a.npy", reader="idx")
    refused("a.npy", "value_range=1:0: give LOW:HIGH", value_range="1:0")
    refused("a.npy", "side: there is no such option", side=3)


def test_archives_that_claim_much(folder):
    content = io.BytesIO()
    Image.fromarray(np.zeros((4000, 4000), np.uint8)).save(content, "PNG")
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", content.getvalue())
    refused("a.zip", "cannot be in so small a file")
    with zipfile.ZipFile("b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("../../a.png", b"")
    refused("b.zip", "packed by method 12")
    info = tarfile.TarInfo("/etc/a.png")
    info.size = 1 << 40
    (folder / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused("a.tar", "claims 1099511627776 bytes")


def test_labels_become_those_of_the_training(drawn, folder):
    names = [f"set/{'ab'[n % 2]}/{n}.png" for n in range(60)]
    save_pictures(folder, drawn, names)
    from emnist_jax.data import own

    dataset = own.load("set")
    assert dataset.class_names == ("a", "b")
    assert {*dataset.train.labels.tolist()} == {0, 1}
    assert isinstance(dataset, data.Dataset)
    save_pictures(folder, drawn[:2], ["other/x/1.png", "other/y/2.png"])
    with pytest.raises(UserError, match="--test_images=other: has the classes x, y"):
        own.load("set", "other")


def test_tables_of_numbers(drawn, folder):
    flat, labels = drawn.reshape(60, 784), np.arange(60) % 7
    rows = np.column_stack([labels, flat])
    np.savetxt("plain.csv", flat, "%d", ",")
    assert same("plain.csv", drawn).labels is None
    np.savetxt("first.csv", rows, "%d", ",")
    assert same("first.csv", drawn).labels.tolist() == labels.tolist()
    header = ",".join([*(f"p{n}" for n in range(784)), "label"])
    last = np.column_stack([flat, labels])
    np.savetxt("last.csv", last, "%d", ",", header=header, comments="")
    assert same("last.csv", drawn).labels.tolist() == labels.tolist()
    np.savetxt("real.csv", flat / 255, "%.5f", ",")
    same("real.csv", drawn)
    np.savetxt("odd.csv", flat[:, 1:], "%d", ",")
    refused("odd.csv", "its 783 columns are no square of pixels")
    with open("plain.csv", "a") as file:
        file.write("1,2\n")
    refused("plain.csv", "cannot read plain.csv: ")


def save_parquet(path, images, labels, size=1024, **metadata):
    table = pyarrow.table({"image": images, "label": labels})
    table = table.replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, path, row_group_size=size)


def png(image):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def test_parquet(drawn, folder):
    labels = [n % 2 for n in range(6)]
    features = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": '
    note = {"huggingface": features + '["cat", "dog"]}}}}'}
    held = [{"bytes": png(image), "path": "x"} for image in drawn[:6]]
    save_parquet("a.parquet", held, labels, **note)
    found = same("a.parquet", drawn[:6])
    assert found.labels.tolist() == labels and found.class_names == ("cat", "dog")
    save_parquet("groups.parquet", held, [*"bababa"], size=4)
    assert same("groups.parquet", drawn[:6]).labels.tolist() == [1, 0] * 3
    save_parquet("b.parquet", [png(image) for image in drawn[:6]], labels)
    assert same("b.parquet:image", drawn[:6]).class_names == ("0", "1")
    save_parquet("c.parquet", drawn[:6].tolist(), labels)
    refused("c.parquet", "--value_range")
    same("c.parquet", drawn[:6], value_range="0:255")
    content = (folder / "a.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(content[:-60] + bytes(52) + content[-8:])
    refused("cut.parquet", "cannot read cut.parquet: ")  # in one line
    refused("c.parquet:pixel", "choose that of images: c.parquet:image")
    (folder / "set" / "data").mkdir(parents=True)
    save_parquet("set/data/train-0.parquet", held[:4], labels[:4])
    save_parquet("set/data/test-0.parquet", held[4:], labels[4:])
    same("set", drawn[:4], split="train")
    same("set", drawn[4:6])

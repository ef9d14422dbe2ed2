"""Every form in which EMNIST is downloaded is read as it is."""

import gzip
import pathlib
import zipfile

import numpy as np
import pytest
import scipy.io
from image_tools import idx, read, refused, same, save_pictures

from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.config import compose, make_config
from emnist_jax.data import emnist_source


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_emnist(form, images, labels):
    """Both parts of EMNIST-Balanced in one of the forms it is downloaded in."""
    transposed = images.swapaxes(1, 2)
    parts = ("train", "test")
    if form == "matlab.zip":
        struct = {"images": transposed.reshape(-1, 784), "labels": labels[:, None]}
        scipy.io.savemat(
            "emnist-balanced.mat",
            {"dataset": {p: struct for p in parts}},
            do_compression=True,
        )
        with zipfile.ZipFile(form, "w") as archive:
            archive.write("emnist-balanced.mat", "matlab/emnist-balanced.mat")
        return
    for part in parts:
        stem = f"emnist-balanced-{part}"
        rows = np.column_stack([labels, transposed.reshape(-1, 784)])
        contents = {f"{stem}-images-idx3-ubyte": idx(transposed)}
        contents[f"{stem}-labels-idx1-ubyte"] = idx(labels)
        if form == "kaggle.zip":
            contents = {
                f"{stem}.csv": "".join(
                    ",".join(map(str, row)) + "\n" for row in rows.tolist()
                ).encode()
            }
            with zipfile.ZipFile(form, "a") as archive:
                archive.writestr(f"{stem}.csv", contents[f"{stem}.csv"])
        for name, content in contents.items():
            gz = form == "gzip"
            path = pathlib.Path(form.removesuffix(".zip"), "raw", name + ".gz" * gz)
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(gzip.compress(content) if gz else content)


@pytest.mark.parametrize("form", ["EMNIST", "gzip", "matlab.zip", "kaggle.zip"])
def test_every_form_of_emnist_is_upright(form, drawn, folder, capsys):
    labels = np.arange(60).astype(np.uint8) % 47
    save_emnist(form, drawn, labels)
    single = {
        "matlab.zip": "emnist-balanced.mat",
        "kaggle.zip": "kaggle/raw/emnist-balanced-test.csv",
    }
    for source in {form, single.get(form, form)}:
        found = same(source, drawn, split="test")
        assert found.labels.tolist() == labels.tolist()
        assert found.class_names[10] == "A" and capsys.readouterr().err == ""
        same(source, drawn.swapaxes(1, 2), split="test", transposed="no")
        images, found = emnist_source.read_split(source, "balanced", "train")
        np.testing.assert_array_equal(images[..., 0], drawn)
        assert found.tolist() == labels.tolist() and found.dtype == np.int32
    with pytest.raises(UserError, match=f"^--emnist_archive={form} is not usable"):
        emnist_source.read_split(form, "letters", "train")


def test_a_copy_of_emnist_that_somebody_turned_stays_upright(drawn, capsys):
    save_emnist("EMNIST", drawn.swapaxes(1, 2), np.arange(60).astype(np.uint8) % 47)
    images, _ = emnist_source.read_split("EMNIST", "balanced", "test")
    np.testing.assert_array_equal(images[..., 0], drawn)
    assert "are upright already" in capsys.readouterr().err


def test_a_data_set_from_an_unpacked_copy(drawn, folder):
    save_emnist("EMNIST", drawn, np.arange(60).astype(np.uint8) % 47)
    options = {"data_dir": "data", "emnist_archive": "EMNIST"}
    dataset = data.load("emnist/balanced", **options)
    np.testing.assert_array_equal(dataset.train.images[..., 0], drawn)
    assert dataset.source["title"] == "EMNIST (unverified copy)"
    assert not dataset.source["official"]
    again = data.load("emnist/balanced", **options)  # what is prepared, by its digest
    assert again.source == dataset.source
    (folder / "EMNIST" / "raw" / "emnist-balanced-test-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="^--emnist_archive=EMNIST is not usable"):
        data.load("emnist/balanced", **options)


def test_settings_of_a_run_read_any_form(drawn, folder):
    names = [f"set/{'ab'[n % 2]}/{n}.png" for n in range(60)]
    save_pictures(folder, [255 - image[2:26] for image in drawn], names)
    options = {"images": "set", "resize": 28, "invert": True, "transposed": "no"}
    chosen = compose.select(make_config(**options))
    assert chosen.dataset.class_names == ("a", "b") and len(chosen.test) >= 3
    image = chosen.test.images[0, ..., 0]
    found = read("set", resize=28, invert=True).images[chosen.test.indices[0]]
    np.testing.assert_array_equal(image, found)
    (folder / "arrays").mkdir()
    np.save("arrays/a.npy", drawn)
    refused("arrays", "arrays holds no pictures")

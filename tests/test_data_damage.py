"""Prepared data sets that were damaged are noticed and made anew."""

import numpy as np
import pytest
from emnist_tools import assert_holds, load, prepared_folder, write_archive

from emnist_jax.data import download, emnist

pytestmark = pytest.mark.usefixtures("no_network")


FILES = ["manifest.json", "train_images.npy", "test_labels.npy"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def flip_header(path):
    content = bytearray(path.read_bytes())
    content[9] ^= 64
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def swap_dtype(path):
    array = np.load(path)
    np.save(
        path, array.view({"u": "i", "i": "u"}[array.dtype.kind] + array.dtype.str[2:])
    )


DAMAGE = [flip, flip_header, cut, swap_dtype, lambda path: path.unlink()]


@pytest.mark.parametrize(
    "damage", DAMAGE, ids=["flip", "header", "cut", "type", "gone"]
)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_noticed_and_repaired(
    official_archive, tmp_path, capsys, name, damage
):
    if damage is swap_dtype and name == "manifest.json":
        damage = lambda path: path.write_text("[]")  # noqa: E731
    cached, splits = official_archive
    load(tmp_path)
    capsys.readouterr()
    folder = prepared_folder(tmp_path)
    damage(folder / name)
    assert_holds(load(tmp_path), splits)
    warnings = [
        line for line in capsys.readouterr().err.splitlines() if "warning" in line
    ]
    assert len(warnings) == 1
    assert str(folder) in warnings[0] and name in warnings[0]
    assert_holds(load(tmp_path), splits)
    assert capsys.readouterr().err == ""


def test_repairs_from_tfds_records_without_the_archive(official_archive, tmp_path):
    cached, splits = official_archive
    load(tmp_path)
    cached.unlink()
    cut(prepared_folder(tmp_path) / "train_images.npy")
    assert_holds(load(tmp_path), splits)


def test_damaged_records_are_not_used_for_repair(official_archive, tmp_path):
    cached, splits = official_archive
    load(tmp_path)
    folder = prepared_folder(tmp_path)
    (records,) = folder.rglob("*train.array_record*")
    other = tmp_path / "other.zip"
    write_archive(other, seed=9)
    emnist.load("balanced", data_dir=tmp_path / "else", emnist_archive=other)
    (wrong,) = (tmp_path / "else").rglob("*train.array_record*")
    for content in (records.read_bytes()[:-900], b"", wrong.read_bytes()):
        records.write_bytes(content)
        cut(folder / "train_images.npy")
        assert_holds(load(tmp_path), splits)
    flip(folder / "test_images.npy")
    records.write_bytes(b"")
    cached.unlink()
    with pytest.raises(download.Unavailable, match="127.0.0.1"):
        load(tmp_path)

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_data_archive import draw_split, write_archive

from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive, download, emnist


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A port that refuses at once stands for NIST."""
    monkeypatch.setattr(archive, "NIST_URL", "http://127.0.0.1:9/gzip.zip")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def small(tmp_path):
    """A small archive and what it holds."""
    path = tmp_path / "gzip.zip"
    return path, write_archive(path)


@pytest.fixture
def official(small, tmp_path, monkeypatch):
    """The small archive passes for NIST's, and was downloaded before."""
    path, splits = small
    monkeypatch.setattr(archive, "NIST_SHA256", archive.sha256(path))
    cached = download.cached_path(tmp_path / "data")
    cached.parent.mkdir(parents=True)
    path.rename(cached)
    return cached, splits


def load(tmp_path, path=None, variant="balanced"):
    return emnist.load(variant, data_dir=tmp_path / "data", emnist_archive=path)


def assert_holds(dataset, splits):
    for part, (images, labels) in splits.items():
        split = getattr(dataset, part)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        np.testing.assert_array_equal(split.indices, np.arange(len(labels)))


def prepared_folder(tmp_path, variant="balanced"):
    (folder,) = (tmp_path / "data" / "emnist_jax").glob(f"{variant}-*")
    return folder


def run_python(code, *arguments, **settings):
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **settings,
    )


LOAD = """
import sys
from emnist_jax import data
dataset = data.load("emnist/balanced", data_dir=sys.argv[1], emnist_archive=sys.argv[2])
heavy = {"tensorflow", "tensorflow_datasets", "requests", "jax"} & set(sys.modules)
print(len(dataset.train), len(dataset.test), *sorted(heavy))
"""


def test_prepares_without_tensorflow_and_loads_without_tfds(small, tmp_path):
    path, splits = small
    first = run_python(LOAD, tmp_path / "data", path)
    assert first.stdout.split()[:2] == ["60", "20"], first.stderr
    assert "tensorflow_datasets" in first.stdout.split()
    assert "tensorflow" not in first.stdout.split()
    stray = [
        line
        for line in first.stderr.splitlines()
        if not line.startswith(("warning: --emnist_archive", "preparing emnist/"))
    ]
    assert stray == []
    second = run_python(LOAD, tmp_path / "data", path)
    assert second.stdout == "60 20\n"
    assert len(second.stderr.splitlines()) == 1
    assert_holds(load(tmp_path, path), splits)


def test_import_is_light():
    code = "import sys, emnist_jax.data; print(*sys.modules)"
    imported = set(run_python(code).stdout.split())
    assert "numpy" in imported
    heavy = {"jax", "tensorflow", "tensorflow_datasets", "requests", "matplotlib"}
    assert not heavy & imported


@pytest.mark.parametrize("variant", archive.VARIANTS)
def test_every_variant_through_tfds(tmp_path, variant):
    path = tmp_path / "gzip.zip"
    splits = write_archive(path, variant, train=70, test=30)
    dataset = data.load(
        f"emnist/{variant}", data_dir=tmp_path / "data", emnist_archive=path
    )
    assert_holds(dataset, splits)
    assert dataset.name == f"emnist/{variant}"
    assert dataset.class_names == archive.VARIANTS[variant].class_names
    assert dataset.train.labels.max() == len(dataset.class_names) - 1
    assert_holds(load(tmp_path, path, variant), splits)


def test_source_tells_a_stand_in_from_nist(small, tmp_path, monkeypatch, capsys):
    path, splits = small
    dataset = load(tmp_path, path)
    digest = archive.sha256(path)
    assert dataset.source == {
        "kind": "tfds",
        "title": "EMNIST (stand-in split)",
        "official": False,
        "archive_sha256": digest,
        "builder": "emnist_upright/balanced",
    }
    assert json.loads(json.dumps(dataset.source)) == dataset.source
    warning = capsys.readouterr().err.splitlines()[-1]
    assert f"--emnist_archive={path} is not NIST's" in warning and digest in warning

    monkeypatch.setattr(archive, "NIST_SHA256", digest)
    dataset = load(tmp_path, path)
    assert dataset.source["title"] == "EMNIST-Balanced"
    assert dataset.source["official"] is True
    assert capsys.readouterr().err == ""


def test_two_archives_never_mix(small, tmp_path):
    path, splits = small
    others = write_archive(tmp_path / "other.zip", seed=5)
    assert_holds(load(tmp_path, path), splits)
    assert_holds(load(tmp_path, tmp_path / "other.zip"), others)
    assert_holds(load(tmp_path, path), splits)
    kept = path.stat()
    assert kept.st_size == (tmp_path / "other.zip").stat().st_size
    path.write_bytes((tmp_path / "other.zip").read_bytes())
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert_holds(load(tmp_path, path), others)


def test_archive_is_hashed_once(small, tmp_path, monkeypatch):
    path, splits = small
    load(tmp_path, path)
    with monkeypatch.context() as patch:
        patch.setattr(archive, "sha256", None)
        assert_holds(load(tmp_path, path), splits)
    (tmp_path / "data" / "emnist_jax" / "archives.json").write_text('{"a": [')
    assert_holds(load(tmp_path, path), splits)


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
def test_damage_is_noticed_and_repaired(official, tmp_path, capsys, name, damage):
    if damage is swap_dtype and name == "manifest.json":
        damage = lambda path: path.write_text("[]")  # noqa: E731
    cached, splits = official
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


def test_repairs_from_tfds_records_without_the_archive(official, tmp_path):
    cached, splits = official
    load(tmp_path)
    cached.unlink()
    cut(prepared_folder(tmp_path) / "train_images.npy")
    assert_holds(load(tmp_path), splits)


def test_damaged_records_are_not_used_for_repair(official, tmp_path):
    cached, splits = official
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


def test_preparing_survives_kill(tmp_path):
    path = tmp_path / "gzip.zip"
    splits = write_archive(path, train=4000, test=1000)
    command = [sys.executable, "-c", LOAD, str(tmp_path / "data"), str(path)]
    killed = 0
    for delay in (0.0, 0.1):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr:
                if line.startswith("preparing"):
                    time.sleep(delay)
                    process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 1
    assert_holds(load(tmp_path, path), splits)
    left = {entry.name for entry in (tmp_path / "data" / "emnist_jax").iterdir()}
    assert left == {".lock", "archives.json", prepared_folder(tmp_path).name}
    assert not list(prepared_folder(tmp_path).glob(".*"))


def test_two_processes_may_prepare_at_once(tmp_path):
    path = tmp_path / "gzip.zip"
    splits = write_archive(path, train=4000, test=1000)
    command = [sys.executable, "-c", LOAD, str(tmp_path / "data"), str(path)]
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    for out, error in answers:
        assert out.split()[:2] == ["4000", "1000"], error
    assert sum("preparing emnist" in error for _, error in answers) == 1
    assert_holds(load(tmp_path, path), splits)


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    path = tmp_path / "gzip.zip"
    splits = write_archive(path, train=4000, test=1000)
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10**6,) * 2)"
    wrapped = (
        f"{limited}\nfrom emnist_jax.cli.command import run_command\n"
        f"run_command(lambda: exec({LOAD!r}))"
    )
    answer = run_python(wrapped, tmp_path / "data", path)
    assert answer.returncode == 2
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("error: cannot write ") and "File too large" in last
    assert "Traceback" not in answer.stderr
    left = {entry.name for entry in (tmp_path / "data" / "emnist_jax").iterdir()}
    assert left == {".lock", "archives.json"}
    assert_holds(load(tmp_path, path), splits)


def test_unusable_folders_and_archives_are_named(small, tmp_path):
    path, _ = small
    (tmp_path / "file").touch()
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            UserError, match=f"^--data_dir={data_dir} cannot be written"
        ):
            emnist.load("balanced", data_dir=data_dir, emnist_archive=path)
    with pytest.raises(UserError, match="^--data_dir=gs://bucket must be a folder"):
        emnist.load("balanced", data_dir="gs://bucket", emnist_archive=path)
    with pytest.raises(UserError, match="^--emnist_archive=.*none.zip cannot be read"):
        load(tmp_path, tmp_path / "none.zip")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"^--emnist_archive={path} is cut short"):
        load(tmp_path, path)
    assert not list((tmp_path / "data").rglob("*balanced*"))


def test_data_dir_follows_the_rule_of_tfds(monkeypatch):
    from tensorflow_datasets.core import constants

    for value in (None, "/somewhere/else", "~/data"):
        if value is None:
            monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
        else:
            monkeypatch.setenv("TFDS_DATA_DIR", value)
        expected = os.path.expanduser(constants.get_default_data_dir())
        assert str(emnist.data_folder(None)) == expected
    assert str(emnist.data_folder("~/x")) == os.path.expanduser("~/x")


def test_records_are_a_tfds_data_set_of_their_own(small, tmp_path):
    from emnist_jax.data import builder

    path, splits = small
    load(tmp_path, path)
    reader = builder.EmnistUpright(
        config="balanced", data_dir=str(prepared_folder(tmp_path))
    )
    assert reader.info.splits["train"].num_examples == 60
    source = reader.as_data_source("train")
    images, labels = splits["train"]
    np.testing.assert_array_equal(source[7]["image"], images[7])
    assert [example["label"] for example in source] == labels.tolist()


def test_draws_images_that_show_their_orientation():
    image = draw_split(1, (0, 1))[0][0, :, :, 0]
    assert not any(
        (image == turned).all() for turned in (image.T, image[::-1], image[:, ::-1])
    )

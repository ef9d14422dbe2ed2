import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from emnist_tools import assert_holds, draw_split, load, prepared_folder, write_archive

from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive, emnist

pytestmark = pytest.mark.usefixtures("no_network")


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


def test_prepares_without_tensorflow_and_loads_without_tfds(small_archive, tmp_path):
    path, splits = small_archive
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


def test_source_tells_what_is_nists(small_archive, tmp_path, monkeypatch, capsys):
    path, splits = small_archive
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


def test_two_archives_never_mix(small_archive, tmp_path):
    path, splits = small_archive
    others = write_archive(tmp_path / "other.zip", seed=5)
    assert_holds(load(tmp_path, path), splits)
    assert_holds(load(tmp_path, tmp_path / "other.zip"), others)
    assert_holds(load(tmp_path, path), splits)
    kept = path.stat()
    assert kept.st_size == (tmp_path / "other.zip").stat().st_size
    path.write_bytes((tmp_path / "other.zip").read_bytes())
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert_holds(load(tmp_path, path), others)


def test_archive_is_hashed_once(small_archive, tmp_path, monkeypatch):
    path, splits = small_archive
    load(tmp_path, path)
    with monkeypatch.context() as patch:
        patch.setattr(archive, "sha256", None)
        assert_holds(load(tmp_path, path), splits)
    (tmp_path / "data" / "emnist_jax" / "archives.json").write_text('{"a": [')
    assert_holds(load(tmp_path, path), splits)


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


def test_unusable_folders_and_archives_are_named(small_archive, tmp_path):
    path, _ = small_archive
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


def test_records_are_a_tfds_data_set_of_their_own(small_archive, tmp_path):
    from emnist_jax.data import builder

    path, splits = small_archive
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

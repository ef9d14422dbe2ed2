"""What a command writes never costs the user anything that it did not name."""

import dataclasses
import json
import os
import re
import stat
import sys
import tempfile

import numpy as np
import pytest
from codec_models import GOLDEN

from emnist_jax import runs
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import __main__ as codec_command
from emnist_jax.codec import writer
from emnist_jax.config import make_config
from emnist_jax.storage import checkpoints, files, paths, results

ORIGINAL = (GOLDEN / "codec_lossless.ejx").read_bytes()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of the user's things under many names; the tests' working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("precious")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "images").write_bytes(ORIGINAL)
    (tmp_path / "hard").hardlink_to("images")
    (tmp_path / "soft").symlink_to("images")
    return tmp_path


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (path.is_symlink(), path.is_file(), content)
        for path in folder.rglob("*")
        for content in [path.read_bytes() if path.is_file() else None]
    }


FOLDERS = ("folder", "folder/", "link", "link/", "./folder/.", "new/")
INPUTS = ("images", "hard", "soft", "folder/../images")
OTHERS = {
    "/dev/stdout": "cannot write /dev/stdout: is neither",
    "images/x": "is not a folder",
    "x" * 256: "File name too long",
}


@pytest.mark.parametrize(
    "command, out",
    [
        (command, out)
        for command in ("compress", "decompress", "train")
        for out in (*FOLDERS, *INPUTS, *OTHERS)
        if (command, out) != ("decompress", "new/")  # where pictures go
    ],
)
def test_codec_outputs_are_refused_before_any_work(command, out, place, capsys):
    before = snapshot(place)
    with pytest.raises(SystemExit) as ended:
        arguments = [command, "images", "--", out]
        run_command(lambda: codec_main(arguments))
    message = capsys.readouterr().err
    assert ended.value.code == 2 and message.count("\n") == 1
    folder = "is (not )?a folder" if command == "decompress" else "is a folder; name a"
    expected = {**dict.fromkeys(FOLDERS, folder), **OTHERS}
    assert re.search(expected.get(out, "is the input file itself"), message)
    assert snapshot(place) == before


def codec_main(arguments):
    sys.argv = ["codec", *arguments]
    codec_command.main()


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress", "folder", "picture"],
        ["compress", "glyphs", "images", "--emnist_archive=soft"],
        ["compress", "glyphs", "images", "--model=hard"],
        ["decompress", "a.ejx", "hard", "--model=images"],
        ["train", "glyphs", "soft", "--start=images"],
        ["train", "glyphs", "m", "--folder=images"],
    ],
)
def test_everything_that_is_read_stays(arguments, place, capsys, monkeypatch):
    (place / "folder" / "a.PNG").write_text("a picture")
    (place / "picture").symlink_to("folder/a.PNG")
    before = snapshot(place)
    monkeypatch.setattr(sys, "argv", ["codec", *arguments])
    with pytest.raises(SystemExit):
        run_command(codec_command.main)
    message = capsys.readouterr().err
    assert "is the input file itself" in message or "is not a folder" in message
    assert snapshot(place) == before


@pytest.mark.parametrize("out", FOLDERS[:4])
def test_no_function_replaces_a_folder(out, place):
    before = snapshot(place)
    calls = [
        lambda: files.write_json(out, {}),
        lambda: writer.compress_file(out, np.zeros((1, 2, 2), np.uint8)),
        lambda: checkpoints.save(out, {"a": np.zeros(2)}, {}),
        lambda: files.write_folder(out, ["plugins"]).__enter__(),
    ]
    for call in calls:
        with pytest.raises(UserError, match="cannot write .*(is|not) a folder"):
            call()
    assert snapshot(place) == before


def test_compress_file_refuses_the_array_that_it_maps(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(UserError, match="is the input file itself"):
        writer.compress_file(path, np.load(path, mmap_mode="r"))
    assert np.load(path).shape == (2, 4, 4)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_permissions_of_a_replaced_file_stay(tmp_path, mode):
    path = tmp_path / "a.json"
    path.touch()
    path.chmod(mode)
    files.write_json(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.stat().st_size
    files.write_json(tmp_path / "new.json", {})
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new.json").stat().st_mode) == 0o666 & ~umask


def test_names_of_any_length(tmp_path):
    for name in ("*", "é" * 127, "x" * 250 + ".json"):
        for value in (1, 2):
            files.write_json(tmp_path / name, {"value": value})
        assert files.read_json(tmp_path / name) == {"value": 2}
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(UserError, match="File name too long"):
        files.write_json(tmp_path / ("x" * 256), {})
    assert len(list(tmp_path.iterdir())) == 3


def test_what_only_looks_like_a_leftover_survives(tmp_path):
    holder = files._holder_prefix("a.json")
    for name in (".a.json.tmp-abcdefgh", f"{holder}abcdefgh", f"{holder}ABCDEFGH"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("precious")
    (tmp_path / f"{holder}12345678").symlink_to(".a.json.tmp-abcdefgh")
    (tmp_path / f"{holder}87654321").write_text("a file")
    (tmp_path / f"{holder}linked__").mkdir()
    (tmp_path / f"{holder}linked__" / "old").symlink_to("../.a.json.tmp-abcdefgh")
    before = snapshot(tmp_path)
    files.remove_leftovers(tmp_path)
    files.write_json(tmp_path / "a.json", {})
    (tmp_path / "a.json").unlink()
    assert snapshot(tmp_path) == before


def test_links_are_followed_only_where_the_user_names_them(place):
    assert paths.check_output("soft") == place.resolve() / "images"
    files.write_json("soft", {})
    assert not os.path.islink("soft")
    assert (place / "images").read_bytes() == ORIGINAL


def test_old_checkpoints_go_and_nothing_else(tmp_path):
    steps = checkpoints.StepCheckpoints(tmp_path / "checkpoints", print)
    for step in (1, 2, 3, 4):
        if step == 2:
            for name in ("step-00000000", "step-²", "step-9"):
                (steps.folder / name).mkdir()
                (steps.folder / name / "thesis.txt").write_text("precious")
        steps.save(step, {"w": np.zeros(2)}, {}, best=4)
    assert steps.steps() == [0, 3, 4]
    assert len(list(steps.folder.rglob("thesis.txt"))) == 3
    with pytest.raises(UserError, match="something else in it; move it away"):
        steps.save(0, {"w": np.zeros(2)}, {}, best=4)
    (steps.folder / "step-00000005").symlink_to(tmp_path)
    with pytest.raises(UserError, match="step-00000005 is a link"):
        steps.save(6, {"w": np.zeros(2)}, {}, best=4)


@pytest.mark.parametrize("name", [*runs.WRITTEN, "latents/train.npy", "figures/x"])
def test_links_in_a_run_folder_are_refused(name, tmp_path):
    settings = dataclasses.asdict(make_config(dataset="glyphs"))
    with runs.open_for_training(tmp_path / "run", settings, {}) as run:
        (run.path / "figures").mkdir()
        (run.path / "latents").mkdir()
    target = tmp_path / "precious"
    target.write_text("precious")
    path = run.path / name
    if path.exists():
        path.rename(tmp_path / "moved")
        target = tmp_path / "moved" if path.suffix else target
    path.symlink_to(target)
    with pytest.raises(UserError, match="is a link, and nothing is written"):
        with runs.open_for_training(tmp_path / "run", settings, {}):
            pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_log_is_never_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "metrics.jsonl").symlink_to("precious")
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl"):
        results.MetricsLog(tmp_path / "metrics.jsonl").write(event="step", step=1)
    assert (tmp_path / "precious").read_text() == "precious"


def test_payloads_lie_beside_the_output(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    images = np.zeros((2, 28, 28), np.uint8)
    writer.compress_file(tmp_path / "a.ejx", images)
    assert writer.compress(images) == (tmp_path / "a.ejx").read_bytes()
    with open(os.devnull, "wb") as null, pytest.raises(UserError, match="missing: No"):
        writer.write(null, images)


@pytest.fixture
def nobody():
    """Makes this process one without rights, if it has all."""
    before = os.getresuid()
    if before[1] == 0:
        os.setresuid(65534, 65534, 0)
    yield
    os.setresuid(*before)


def test_a_read_only_folder_is_named(nobody):
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/new/a.json"
        os.chmod(folder, 0o555)
        with pytest.raises(UserError, match=f"{out}: the folder {folder} cannot be"):
            paths.check_output(out)
        with pytest.raises(UserError, match=f"cannot write {out}: Permission denied"):
            files.write_json(out, {})
        os.chmod(folder, 0o700)


def test_a_replaced_folder_is_ours(tmp_path):
    path = tmp_path / "a"
    path.mkdir()  # an empty one may be given
    for value in (1, 2):
        checkpoints.save(path, {"a": np.full(2, value)}, {})
        (path / "manifest.json").unlink()  # a damaged one is replaced too
    checkpoints.save(path, {"a": np.full(2, 3)}, {})
    assert json.loads((path / "metadata.json").read_text()) == {}
    assert checkpoints.load(path)[0]["a"][0] == 3
    assert os.listdir(tmp_path) == ["a"]

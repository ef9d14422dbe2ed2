"""Bad calls of the commands: one line says what is right, and nothing is lost.

Every row runs the command's main function in a folder that holds all the inputs of
all rows and a finished run, and compares that folder before and after.
"""

import functools
import os
import pathlib
import runpy
import subprocess
import sys

import bad_inputs
import numpy as np
import pytest

from emnist_jax import evaluate, latents
from emnist_jax.cli.command import run_command
from emnist_jax.data import glyphs
from emnist_jax.runs import import_keras

LAUNCH = runpy.run_path("launch.py")["main"]
COMMANDS = {
    "launch": LAUNCH,
    "evaluate": evaluate.main,
    "latents": latents.main,
    "import_keras": import_keras.main,
}
GLYPHS = "--dataset=glyphs --train_examples=100 --test_examples=30 --batch_size=8"
NIST = "--dataset=emnist/balanced --data_dir=data --emnist_archive="
HOSTS = "--distributed --num_processes=2 --process_id=0 --coordinator_address="
ENCODE = "--run=run --out=out.npy --images="
LATENTS = "--run=run --out=out.npy --latents="
DECODE = "--run=run --out=out.npy --decode --latents="
NO_RUN = "holds no trained model, neither encoder/ nor decoder/; name the folder of a"
PIXELS = "expected uint8 in 0..255 or floats in 0..1"


@pytest.fixture(scope="module")
def place(run_path, tmp_path_factory, images):
    """The folder where bad calls are made."""
    place = tmp_path_factory.mktemp("place")
    bad_inputs.write(place, run_path, images[:5])
    return place


@pytest.fixture(scope="module", autouse=True)
def glyphs_drawn_once():
    """Drawing them takes a second, and many calls get as far."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "load", functools.cache(glyphs.load))
        yield


def snapshot(place):
    """What identifies every file: kind, size, time of change and inode.

    All but the data sets prepared from archives, which are kept for the next call.
    """
    found = {}
    for folder, folders, names in os.walk(place):
        folders[:] = {*folders} - {"data"}
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            is_file = name in names
            facts = (state.st_mode, state.st_size, state.st_mtime_ns, state.st_ino)
            found[os.path.relpath(path, place)] = facts if is_file else None
    return found


def call(command, arguments, monkeypatch, capsys):
    """Exit status, stdout and stderr of a command."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    with pytest.raises(SystemExit) as exit:
        run_command(COMMANDS[command])
    return exit.value.code, *capsys.readouterr()


def assert_refused(answer, message):
    status, printed, errors = answer
    assert status == 2, errors
    assert errors.startswith("error: ") and errors.endswith("\n"), errors
    assert message in errors
    assert errors.count("\n") == 1, errors


# Of each command: arguments, and a part of the error.
ROWS = {
    "launch": [
        ("--decoder=model05", "--decoder=model05: must be one of model01, model02"),
        ("--decoder=MODEL01", "--decoder=MODEL01: must be one of"),
        ("--decoder=", "--decoder=: must not be empty"),
        ("--dataset=minst", "--dataset=minst: must be one of auto, glyphs, emnist/"),
        ("--decodr=model01", "Unknown command line flag 'decodr'. Did you mean: dec"),
        ("--profile=maybe", "--profile=maybe: must be true or false"),
        ("--epochs", "Missing value for flag --epochs"),
        ("--epochs=3 --epochs=x", "--epochs=x: must be a whole number"),
        ("model03", "argument 'model03' is not a flag; flags are --name=value"),
        ("--flagfile=none", "Unable to open flagfile"),
        ("--workdir=", "--workdir=: must not be empty"),
        ("--run_name=", "--run_name=: must not be empty"),
        ("--run_name=../x", "--run_name='../x': must be a plain folder name"),
        ("--run_name=a\nb", "--run_name='a\\nb': must be a plain folder name"),
        (f"--run_name={'x' * 101}", "folder name of at most 100 letters"),
        ("--coordinator_address=here", "--coordinator_address=here: needs --distr"),
        (f"{HOSTS}here", "--coordinator_address=here: must be HOST:PORT"),
        (f"{HOSTS}here:80:80", "--coordinator_address=here:80:80: must be HOST:PORT"),
        (f"{HOSTS}here:65536", "--coordinator_address=here:65536: must be HOST:PORT"),
        (f"{HOSTS}here:80 --process_id=2", "--process_id=2: must be under --num_proc"),
        ("--distributed --process_id=1", "--process_id=1: needs --coordinator_address"),
        (f"{GLYPHS} --emnist_archive=text", "--emnist_archive=text does not go with"),
        (f"{GLYPHS} --batch_size=7", "--batch_size=7: must be divisible by the 2 dev"),
        (f"{GLYPHS} --batch_size=100", "--batch_size=100: more than the 95 training"),
        (f"{GLYPHS} --train_examples=4701", "--train_examples=4701 is not possible"),
        (f"{GLYPHS} --test_examples=2147483647", "so give 1 to 940"),
        (f"{GLYPHS} --train_examples=1", "--validation_fraction=0.05 cannot be held"),
        (
            f"{GLYPHS} --workdir=text",
            "/text/glyphs-model01-best-seed0",
        ),
        (f"{GLYPHS} --workdir=/proc", "--workdir=/proc: cannot write /proc/glyphs"),
        (f"{GLYPHS} --workdir=loop.npy", "Too many levels of symbolic links; name"),
        (f"{GLYPHS} --workdir=. --run_name=folder", "no config.json but holds dir.npy"),
        (f"{GLYPHS} --workdir=. --run_name=run", "run belongs to a run with other"),
        (f"{NIST}none.zip", "--emnist_archive=none.zip cannot be read: No such file"),
        (f"{NIST}folder", "--emnist_archive=folder is not usable: it holds no file"),
        (f"{NIST}loop.npy", "--emnist_archive=loop.npy cannot be read: Too many"),
        (f"{NIST}pipe.npy", "--emnist_archive=pipe.npy cannot be read: Not a regular"),
        (f"{NIST}/dev/zero", "--emnist_archive=/dev/zero cannot be read: Not a reg"),
        (f"{NIST}text", "--emnist_archive=text is cut short, damaged or no zip arch"),
        (f"{NIST}letters.zip", "--emnist_archive=letters.zip is not usable: it has n"),
        (f"{NIST}bomb.zip", "--emnist_archive=bomb.zip is not usable: gzip/emnist-b"),
        (f"{NIST}nist.zip --data_dir=text", "text cannot be written: Not a directory"),
        (f"{NIST}nist.zip --data_dir=gs://x", "--data_dir=gs://x must be a folder"),
    ],
    "evaluate": [
        ("", "the following arguments are required: --run (see"),
        ("--run=", "--run=: must not be empty"),
        ("--run=none", f"--run=none: {NO_RUN}"),
        ("--run=text", f"--run=text: {NO_RUN}"),
        ("--run=folder", f"--run=folder: {NO_RUN}"),
        ("--run=run/encoder", f"--run=run/encoder: {NO_RUN}"),
        ("--run=foreign", "foreign/results.json: schema 'weights/7', expected emnist"),
        ("--run=new-version", "new-version/config.json: unknown setting 'sed'"),
        ("--run=run --dataset=minst", "--dataset=minst: must be one of"),
        ("--run=run --data_dir=", "--data_dir=: must not be empty"),
        ("--run=run --emnist_archive=x", "--emnist_archive=x does not go with"),
        (f"--run=run {NIST}none.zip", "--emnist_archive=none.zip cannot be read"),
    ],
    "latents": [
        ("--images=images.npy --out=out.npy", "are required: --run (see"),
        ("--run=run --images=images.npy", "are required: --out (see"),
        ("--run=run --out=out.npy", "--images is missing: the .npy file to read"),
        ("--run=run --out=out.npy --decode", "--latents is missing"),
        (f"{LATENTS}latents.npy", "--latents=latents.npy: needs --decode"),
        (f"{DECODE}x --images=y", "--latents=x: does not go with --images"),
        (f"{ENCODE}images.npy --run=", "--run=: must not be empty"),
        (f"{ENCODE}images.npy --run=folder", f"--run=folder: {NO_RUN}"),
        (f"{ENCODE}", "--images=: must not be empty"),
        (f"{ENCODE}none", "cannot read none: No such file"),
        (f"{ENCODE}folder/dir.npy", "folder/dir.npy holds no pictures (.png,"),
        (f"{ENCODE}pipe.npy", "cannot read pipe.npy: Not a regular file"),
        (f"{ENCODE}zero.npy", "cannot read zero.npy: Not a regular file"),
        (f"{ENCODE}loop.npy", "cannot read loop.npy: Too many levels of symbolic"),
        (f"{ENCODE}wide.npy", "wide.npy: 28x27 pixels, but the images that"),
        (f"{ENCODE}scalar.npy", "scalar.npy: shape (), expected [N, height"),
        (f"{ENCODE}ints.npy", f"ints.npy: type int64, {PIXELS}"),
        (f"{ENCODE}bools.npy", f"bools.npy: type bool, {PIXELS}"),
        (f"{ENCODE}words.npy", f"words.npy: type <U5, {PIXELS}"),
        (f"{ENCODE}bytes.npy", "bytes.npy: values from 0 to 25"),
        (f"{ENCODE}negative.npy", "negative.npy: values from -0.1 to"),
        (f"{ENCODE}nan.npy", "nan.npy: a value is not finite"),
        (f"{ENCODE}huge.npy", "huge.npy: values from 0 to 1e+300, expected"),
        (f"{ENCODE}objects.npy", "objects.npy is not a NumPy .npy array: it holds pic"),
        (f"{ENCODE}many.npz", "many.npz holds the arrays a, b; choose one: many.npz:a"),
        (f"{ENCODE}text", "text is no image file that is known: give one of"),
        (f"{ENCODE}none.npy", "none.npy is no image file that is known"),
        (f"{ENCODE}cut.npy", "cut.npy is not a NumPy .npy array: it is cut short"),
        (f"{ENCODE}cut-header.npy", "cut-header.npy is not a NumPy .npy array: EOF"),
        (f"{ENCODE}minus.npy", "array: its shape is (-5, 28, 28)"),
        (f"{ENCODE}more.npy", "array: it is cut short: (2000000000000, 28, 28) uint8"),
        (f"{ENCODE}void.npy", "void.npy: shape (2000000000000, 0), expected"),
        (f"{ENCODE}true.npy", "true.npy is not a NumPy .npy array"),
        (f"{ENCODE}code.npy", "code.npy is not a NumPy .npy array"),
        (f"{ENCODE}nested.npy", "nested.npy is not a NumPy .npy array"),
        (f"{ENCODE}long.npy", "long.npy is not a NumPy .npy array"),
        (f"{ENCODE}latents.npy", "latents.npy: shape (3, 32), expected [N, height"),
        (f"{DECODE}images.npy", "images.npy: shape (5, 28, 28, 1), expected [N, 32]"),
        (f"{DECODE}latents31.npy", "shape (3, 31), expected [N, 32] as this run's"),
        (f"{DECODE}latents-int.npy", "latents-int.npy: type int32, expected floats"),
        (f"{DECODE}latents-inf.npy", "latents-inf.npy: a value is not finite"),
        (f"{ENCODE}images.npy --out=images.npy", "--out=images.npy: is the input fil"),
        (f"{ENCODE}images.npy --out=run/../images.npy", "is the input file itself"),
        (f"{ENCODE}images.npy --out=link.npy", "--out=link.npy: is the input file"),
        (f"{ENCODE}link.npy --out=images.npy", "--out=images.npy: is the input file"),
        (f"{ENCODE}images.npy --out=hard.npy", "--out=hard.npy: is the input file"),
        (f"{ENCODE}images.npy --out=", "--out=: must not be empty"),
        (f"{ENCODE}images.npy --out=folder", "--out=folder: is a folder; name a file"),
        (f"{ENCODE}images.npy --out=new/x.npy", "--out=new/x.npy: there is no such fo"),
        (f"{ENCODE}images.npy --out=text/x.npy", "--out=text/x.npy: there is no suc"),
        (f"{ENCODE}images.npy --out=/proc/x", "cannot write /proc/x: No such file"),
        (f"{ENCODE}images.npy --out=pipe.npy", "pipe.npy: is neither a file nor a"),
        (f"{ENCODE}images.npy --out=loop.npy", "loop.npy: is neither a file nor a"),
        (f"{ENCODE}images.npy --out=/dev/null", "/dev/null: is neither a file nor a"),
        (f"{ENCODE}images.npy --out={'x' * 300}", "File name too long"),
    ],
    "import_keras": [
        ("--encoder=text --decoder=text", "are required: --out (see --help)"),
        ("--encoder= --decoder=text --out=new", "--encoder=: must not be empty"),
        ("--encoder=none --decoder=text --out=new", "--encoder=none: No such file"),
        (
            "--encoder=folder --decoder=text --out=new",
            "--encoder=folder: Is a directory",
        ),
        (
            "--encoder=pipe.npy --decoder=text --out=new",
            "--encoder=pipe.npy: Not a reg",
        ),
        ("--encoder=text --decoder=text --out=new", "--encoder=text: "),
        ("--encoder=nist.zip --decoder=text --out=new", "--encoder=nist.zip: "),
    ],
}


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [(command, *row) for command, rows in ROWS.items() for row in rows],
)
def test_bad_calls(command, arguments, message, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = snapshot(place)
    arguments = arguments.split(" ") if arguments else []
    answer = call(command, arguments, monkeypatch, capsys)
    assert_refused(answer, message)
    assert snapshot(place) == before


@pytest.mark.parametrize("form", ["fortran", "big-endian", "empty", "through a link"])
def test_odd_calls_that_are_right(form, place, tmp_path, monkeypatch, capsys, images):
    expected = images[:5]
    array = {
        "fortran": np.asfortranarray(expected),
        "big-endian": (expected / 255).astype(">f8"),
        "empty": expected[:0],
        "through a link": expected,
    }[form]
    np.save(tmp_path / "in.npy", array)
    out = tmp_path / "out.npy"
    if form == "through a link":
        (tmp_path / "target.npy").write_text("old")
        out.symlink_to("target.npy")
    inputs = [f"--run={place / 'run'}", f"--images={tmp_path / 'in.npy'}"]
    status, printed, errors = call(
        "latents", [*inputs, f"--out={out}"], monkeypatch, capsys
    )
    assert (status, errors) == (0, "")
    assert str(out) in printed
    found = np.load(out)
    assert found.shape == (len(array), 32) and found.dtype == np.float32
    status, *_ = call(
        "latents",
        [*inputs[:1], f"--images={place / 'images.npy'}", f"--out={tmp_path / 'x'}"],
        monkeypatch,
        capsys,
    )
    np.testing.assert_allclose(found, np.load(tmp_path / "x")[: len(found)], atol=1e-6)
    assert out.is_symlink() == (form == "through a link")


# The same in real processes.


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_processes_exit_with_one_line(place):
    root = pathlib.Path.cwd()
    before = snapshot(place)
    for arguments, message in (
        ([root / "launch.py", "--epochs=0"], "--epochs=0: must be a whole number from"),
        ([root / "launch.py", "--workdir=\udcff"], "--workdir=\\udcff: must be UTF-8"),
        (
            [*"-m emnist_jax.latents --out=images.npy".split(), *ENCODE.split()[::2]],
            "--images=: must not be empty",
        ),
    ):
        done = process(*arguments, cwd=place)
        assert_refused((done.returncode, "", done.stderr), message)
    assert snapshot(place) == before

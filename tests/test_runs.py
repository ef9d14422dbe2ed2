"""A run as a Python object: moved about, pickled, forked, and with odd inputs."""

import contextlib
import multiprocessing
import os
import pathlib
import pickle
import shutil
import tempfile

import jax
import numpy as np
import pytest

import emnist_jax
from emnist_jax import evaluate, latents
from emnist_jax.cli.errors import UserError
from emnist_jax.storage import checkpoints
from emnist_jax.storage.checkpoints import DamagedCheckpoint, StepCheckpoints
from emnist_jax.storage.results import load_results


@pytest.fixture(scope="module")
def run(run_path):
    return emnist_jax.load_run(run_path)


@contextlib.contextmanager
def somebody_else():
    """Within the block this process has no rights of root's."""
    if os.geteuid():
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def shared_run(run_path):
    """A copy of the run in a folder that everybody may read and its owner write."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(shutil.copytree(run_path, pathlib.Path(folder) / "run"))


def test_a_relative_run_after_chdir(run_path, images, tmp_path, monkeypatch):
    monkeypatch.chdir(run_path.parent)
    run = emnist_jax.load_run(run_path.name)
    monkeypatch.chdir(tmp_path)
    assert run.encode(images).shape == (64, 32)
    assert run.config["decoder"] == "model03" and run.path.name == run_path.name


def test_pickles_as_its_path(run, run_path, images):
    fresh = emnist_jax.load_run(run_path)
    before = pickle.dumps(fresh)
    expected = fresh.encode(images)
    assert pickle.dumps(fresh) == before and len(before) < 300
    copy = pickle.loads(before)
    assert copy.path == run_path
    np.testing.assert_array_equal(copy.encode(images), expected)


def answer(function, value, pipe):
    try:
        pipe.send(function(value).shape)
    except UserError as error:
        pipe.send(str(error))


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork_says_so_instead_of_hanging(run, run_path, images, loaded):
    decoded = run.decode(run.encode(images[:3]))
    assert decoded.shape == (3, 28, 28, 1)
    used = run if loaded else emnist_jax.load_run(run_path)
    for function, value in [(used.encode, images), (used.decode, np.zeros((1, 32)))]:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=answer, args=(function, value, theirs)
        )
        child.start()
        child.join(30)
        hangs = child.is_alive()
        child.kill()
        assert not hangs and "get_context('spawn')" in ours.recv()


def test_spawned_processes_encode(run, images):
    expected = run.encode(images[:5])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(run.encode, (images[:5],))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_library_errors_name_the_parameter(tmp_path):
    with pytest.raises(UserError, match="^path=nope: holds no trained model") as error:
        emnist_jax.load_run("nope")
    assert "--" not in str(error.value)
    with pytest.raises(UserError, match="^--init_from=nope: holds no trained model"):
        emnist_jax.load_run("nope", flag="--init_from")


def test_latents_too_large_to_decode(run_path, tmp_path):
    run = emnist_jax.load_run(run_path)
    decoder, params = run.decoder  # two epochs leave its weights small
    run.decoder = decoder, jax.tree.map(lambda x: 100 * x, params)
    values = np.zeros((300, 32), np.float32)
    values[270] = 3e38
    message = "row 270 gives values that are not finite"
    with pytest.raises(UserError, match=f"latents: {message}"):
        run.decode(values)
    source, out = tmp_path / "in.npy", tmp_path / "out.npy"
    np.save(source, values)
    with pytest.raises(UserError, match=f"{source}: {message}"):
        latents.convert(run, source, out, decode=True)
    assert not out.exists()


# What is said of a checkpoint that cannot be used


def test_missing_is_not_damaged(run_copy):
    shutil.rmtree(run_copy / "decoder")
    run = emnist_jax.load_run(run_copy)
    with pytest.raises(DamagedCheckpoint, match="decoder is missing: No such file"):
        run.decode(np.zeros((1, 32)))


@pytest.mark.parametrize("name", ["encoder", "encoder/manifest.json", "encoder/d", "."])
def test_unreadable_is_not_damaged(shared_run, images, name):
    (shared_run / name).chmod(0)
    with somebody_else(), pytest.raises(UserError) as error:
        emnist_jax.load_run(shared_run).encode(images)
    (shared_run / name).chmod(0o755)
    text = str(error.value)
    assert "cannot be read: " in text and "Permission denied" in text
    assert "damaged" not in text and not isinstance(error.value, DamagedCheckpoint)


def test_an_unreadable_step_deletes_and_advises_nothing(shared_run):
    warnings = []
    store = StepCheckpoints(shared_run / "checkpoints", warnings.append)
    latest = store.path(store.steps()[-1])
    (latest / "manifest.json").chmod(0)
    with somebody_else(), pytest.raises(UserError, match="Permission denied") as error:
        store.latest()
    assert "delete" not in str(error.value) and not warnings


def test_what_orbax_cannot_read_is_not_damaged(tmp_path):
    checkpoints.save(tmp_path / "c", {"w": np.zeros(3)}, {})
    (tmp_path / "c" / "_METADATA").write_text("{}")
    digests = checkpoints._digests(tmp_path / "c")
    (tmp_path / "c" / "manifest.json").write_text(str(digests).replace("'", '"'))
    with pytest.raises(UserError, match="as its manifest says, but Orbax") as error:
        checkpoints.load(tmp_path / "c")
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, DamagedCheckpoint)


@pytest.mark.long
def test_an_archived_run_is_evaluated_elsewhere(shared_run, tmp_path, capsys):
    with somebody_else(), pytest.raises(UserError, match="with --out=FOLDER") as error:
        evaluate.main([f"--run={shared_run}"])
    assert f"--run={shared_run}: cannot be written" in str(error.value)
    out = tmp_path / "out"
    for path in (*shared_run.rglob("*"), shared_run):
        path.chmod(path.stat().st_mode & ~0o222)
    before = {p: p.stat().st_mtime_ns for p in shared_run.rglob("*")}
    for _ in range(2):  # again into its own output
        evaluate.main([f"--run={shared_run}", f"--out={out}"])
    for path in (shared_run, *shared_run.rglob("*")):  # for the removal
        path.chmod(0o755)
    assert {p: p.stat().st_mtime_ns for p in shared_run.rglob("*")} == before
    assert {p.name for p in out.iterdir()} == {"results.json", "latents", "figures"}
    names = {p.name for p in (out / "figures").iterdir()}
    assert names == {p.name for p in (shared_run / "figures").iterdir()}
    ours, theirs = load_results(out), load_results(shared_run)
    assert ours["test"] == theirs["test"] and "test images" in capsys.readouterr().out


@pytest.mark.parametrize("found", ["precious.txt", "encoder", "latents"])
def test_out_is_nothing_else(run, tmp_path, found):
    (tmp_path / found).mkdir()
    with pytest.raises(UserError, match=f"^--out={tmp_path}: holds {found}; name a"):
        evaluate.main([f"--run={run.path}", f"--out={tmp_path}"])


def test_results_of_earlier_versions_are_read():
    root = pathlib.Path(__file__).parent.parent / "experiments" / "results"
    stored = root / "first_runs" / "model03-best-seed0.json"
    assert load_results(stored)["schema"] == "emnist_jax.results/1"

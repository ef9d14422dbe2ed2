"""Strict settings for every test: two virtual CPU devices, no silent broadcasting.

TEST_PLATFORMS=cuda,cpu or tpu,cpu in the environment runs them there.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import sys

os.environ["JAX_PLATFORMS"] = os.environ.get("TEST_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "2"
os.environ["MPLBACKEND"] = "agg"
# Compiling costs more than what runs here; `.ci/run` also tests as users compile.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of a file share a worker: its fixtures and what JAX has compiled for it."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def shared(tmp_path_factory, name):
    """A folder for all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


@contextlib.contextmanager
def one_at_a_time(path):
    """Of all workers one is in the block."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """A compilation cache for all workers and their child processes."""
    folder = str(shared(tmp_path_factory, "jax-cache"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory):
    """The cache folder of a user whose kernels have been tried: one for all tests."""
    folder = shared(tmp_path_factory, "user-cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def images():
    """64 soft blobs, uint8 [64, 28, 28, 1]: smooth enough to be learned."""
    generator = np.random.default_rng(0)
    centres = generator.uniform(9, 19, (64, 2, 1, 1))
    y, x = np.mgrid[:28, :28]
    squares = (y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2
    blobs = 255 * np.exp(-squares / generator.uniform(8, 40, (64, 1, 1)))
    return blobs.round().astype(np.uint8)[..., None]


@pytest.fixture(scope="session")
def drawn():
    """60 different characters, uint8 [60, 28, 28]."""
    from emnist_jax.data import glyphs

    return glyphs.draw(np.arange(60) % 47, 7)[..., 0]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of the main job on a few glyphs: its config and its results."""
    from emnist_jax.config import make_config
    from emnist_jax.train import train_and_evaluate

    folder = shared(tmp_path_factory, "runs")
    config = make_config(
        dataset="glyphs",
        decoder="model03",
        train_examples=100,
        test_examples=30,
        validation_fraction=0.2,
        batch_size=8,
        epochs=2,
        workdir=str(folder),
        compilation_cache=False,
    )
    with one_at_a_time(f"{folder}.lock"):  # the first trains, others read its results
        return config, train_and_evaluate(config)


@pytest.fixture(scope="session")
def run_path(finished):
    """Folder of the finished run; tests must not change it."""
    config, _ = finished
    return pathlib.Path(config.workdir) / config.name


@pytest.fixture
def run_copy(run_path, tmp_path):
    """A copy of the finished run for tests that change it."""
    return pathlib.Path(shutil.copytree(run_path, tmp_path / run_path.name))


@pytest.fixture
def here(monkeypatch, run_path):
    """Runs that a study starts are the finished run, under their own settings."""
    from emnist_jax.cli.flags import parse_config
    from emnist_jax.storage import files
    from experiments import study

    def launch(arguments):
        config = parse_config(["launch.py", *arguments], "")
        run = shutil.copytree(run_path, pathlib.Path(config.workdir) / config.name)
        for name in ("config.json", "results.json"):
            record = files.read_json(run / name)
            record |= {"config": dataclasses.asdict(config), "name": run.name}
            files.write_json(run / name, record)
        return 0

    monkeypatch.setattr(study, "launch", launch)


@pytest.fixture
def few_derivatives(monkeypatch):
    """The basis of latent files from 512 derivatives: users' 8,192 take seconds."""
    from emnist_jax.codec import latent_basis

    monkeypatch.setattr(latent_basis, "_SAMPLE", (16, 512))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the codec's command in this process: (exit status, stdout, stderr)."""
    from emnist_jax.cli.command import run_command
    from emnist_jax.codec import __main__ as command

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["codec", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_command(command.main)
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture
def sources(tmp_path, images):
    """Four shards of images, one of them empty."""
    from bulk_tools import ROWS

    folder, first = tmp_path / "shards", 0
    folder.mkdir()
    for number, rows in enumerate(ROWS):
        np.save(folder / f"part-{number}.npy", images[first : first + rows])
        first += rows
    return folder


@pytest.fixture
def counted(monkeypatch):
    """Names of the sources that a bulk job compresses."""
    from emnist_jax.bulk import shards

    done, real = [], shards._COMMANDS["compress"]

    def compress(job, path, out):
        done.append(path.stem)
        return real(job, path, out)

    monkeypatch.setitem(shards._COMMANDS, "compress", compress)
    return done


@pytest.fixture
def no_network(monkeypatch):
    """A port that refuses at once stands for NIST."""
    from emnist_jax.data import archive

    monkeypatch.setattr(archive, "NIST_URL", "http://127.0.0.1:9/gzip.zip")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def small_archive(tmp_path):
    """A small archive in EMNIST's form and what it holds."""
    from emnist_tools import write_archive

    path = tmp_path / "gzip.zip"
    return path, write_archive(path)


@pytest.fixture
def official_archive(small_archive, tmp_path, monkeypatch):
    """The small archive passes for NIST's, and was downloaded before."""
    from emnist_jax.data import archive, download

    path, splits = small_archive
    monkeypatch.setattr(archive, "NIST_SHA256", archive.sha256(path))
    cached = download.cached_path(tmp_path / "data")
    cached.parent.mkdir(parents=True)
    path.rename(cached)
    return cached, splits

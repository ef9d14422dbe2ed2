"""The package that is built: what is in it, and that it works outside a checkout."""

import os
import pathlib
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

import emnist_jax

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def call(*command, **options):
    """What a command prints; its errors are this test's."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it, of the files that Git has."""
    place = tmp_path_factory.mktemp("package")
    listed = call("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / "source" / name)
    builder = [sys.executable, "-m", "build", "--no-isolation"]
    call(*builder, "--outdir", place, place / "source", cwd=place)
    (sdist,), (wheel,) = place.glob("*.tar.gz"), place.glob("*.whl")
    return sdist, wheel


def test_what_is_in_it(built):
    sdist, wheel = built
    with tarfile.open(sdist) as file:
        sources = {name.partition("/")[2] for name in file.getnames()}
    assert {"launch.py", "docs/codec_format.md", "CHANGELOG.md", "LICENSE"} <= sources
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = f"emnist_jax-{emnist_jax.__version__}"
        assert file.testzip() is None
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"emnist_jax", f"{metadata}.dist-info", f"{metadata}.data"}
    tracked = call("git", "ls-files", "emnist_jax", cwd=ROOT).splitlines()
    assert set(tracked) <= names  # models, weights, page, py.typed and all modules
    assert f"{metadata}.data/data/share/doc/emnist-jax/codec_format.md" in names
    assert wheel.stat().st_size < 20 * 2**20


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A call of a program in a fresh environment that holds the wheel."""
    place = tmp_path_factory.mktemp("fresh")
    call(sys.executable, "-m", "venv", "--without-pip", place)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    call(*pip, "install", "-q", "--no-deps", "--no-index", built[1])
    # Its dependencies are those of this environment, not a gigabyte downloaded again.
    folder = call(python, "-c", "import site; print(site.getsitepackages()[0])").strip()
    others = [*site.getsitepackages(), *map(os.path.abspath, filter(None, sys.path))]
    kept = [x for x in dict.fromkeys(others) if pathlib.Path(x).name == "site-packages"]
    (pathlib.Path(folder) / "others.pth").write_text("\n".join(kept) + "\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    (place / "work").mkdir()

    def run(program, *arguments):
        command = [place / "bin" / program, *arguments]
        return call(*command, cwd=place / "work", env=environment)

    return place, run


def test_it_is_what_was_built(installed):
    place, run = installed
    assert run("emnist-jax", "--version") == f"emnist_jax {emnist_jax.__version__}\n"
    where = run("python", "-c", "import emnist_jax; print(emnist_jax.__file__)")
    assert pathlib.Path(where.strip()).is_relative_to(place)
    for name in ("experiments", "tests"):
        find = f"import importlib.util as u; print(u.find_spec({name!r}))"
        assert run("python", "-c", find) == "None\n"
    assert (place / "share" / "doc" / "emnist-jax" / "codec_format.md").exists()


def test_it_trains_encodes_and_compresses(installed, images):
    place, run = installed
    few = "--train_examples=40", "--test_examples=6", "--epochs=1", "--batch_size=20"
    call = ["train", "--dataset=glyphs", "--decoder=model03", *few, "--run_name=few"]
    assert "dead latents" in run("emnist-jax", *call)
    np.save(place / "work" / "images.npy", images[:5])
    flags = "--run=runs/few", "--images=images.npy", "--out=latents.npy"
    assert "5x32" in run("emnist-jax", "latents", *flags)
    run("emnist-jax", "codec", "compress", "images.npy", "a.ejx", "--model=fast")
    run("emnist-jax", "codec", "decompress", "a.ejx", "back.npy")
    back = np.load(place / "work" / "back.npy")
    np.testing.assert_array_equal(back, images[:5])
    run("emnist-jax", "codec", "compress", "images.npy", "a.zarr", "--model=fast")
    check = "import numpy as n, zarr; n.save('zarr.npy', zarr.open('a.zarr')[1:3])"
    run("python", "-c", check)  # by the entry points of the wheel
    back = np.load(place / "work" / "zarr.npy")
    np.testing.assert_array_equal(back, images[1:3])
    shown = run("emnist-jax", "results", "runs/few")
    assert "mse" in shown and "runs/few" in shown

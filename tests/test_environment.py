"""Every command once in each environment that stands in its way: one process each."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from codec_models import TINY

ROOT = pathlib.Path(__file__).parent.parent
# Runs the calls one after the other and writes their statuses into a file.
SCRIPT = """
import importlib, json, runpy, sys
from emnist_jax.cli.command import run_command
calls, out = json.loads(sys.argv[1]), sys.argv[2]
statuses = {}
for name, *arguments in calls:
    sys.argv = [name, *arguments]
    try:
        if name.endswith(".py"):
            main = runpy.run_path(name)["main"]
        else:
            main = importlib.import_module(name).main
        run_command(main)
    except SystemExit as end:
        statuses[" ".join([name, *arguments[:1]])] = end.code
    if sys.stderr:
        print("--", file=sys.stderr, flush=True)
with open(out, "w") as file:
    json.dump(statuses, file)
"""


@pytest.fixture
def place(run_path, images):
    """A folder of inputs, and in it one that cannot be written, to work in."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        shutil.copytree(run_path, place / "runs" / run_path.name)
        np.save(place / "images.npy", images[:3])
        np.save(place / "latents.npy", np.zeros((2, 32), np.float32))
        (place / "comparison.md").write_text("| a |\n|---|\n| 1 |\n")
        (place / "read-only").mkdir(mode=0o555)
        yield place


def commands(place, config):
    """A call of each command: launch last, whose run is finished."""
    run = f"--run={place}/runs/{config.name}"
    settings = {k: v for k, v in vars(config).items() if v is not None}
    settings |= {"workdir": f"{place}/runs", "compilation_cache": True}
    launch = [f"--{name}={value}" for name, value in settings.items()]
    latents = f"--latents={place}/latents.npy", f"--out={place}/back.npy"
    model = f"--model={TINY}"
    return [
        ("emnist_jax.evaluate", run, f"--out={place}/evaluated"),
        ("emnist_jax.latents", run, f"--images={place}/images.npy", f"--out={place}/l"),
        ("emnist_jax.latents", "--decode", run, *latents),
        (
            "emnist_jax.codec.__main__",
            "compress",
            f"{place}/images.npy",
            f"{place}/c",
            model,
        ),
        (
            "emnist_jax.codec.__main__",
            "decompress",
            f"{place}/c",
            f"{place}/d.npy",
            model,
        ),
        ("experiments.report", f"--workdir={place}"),
        (str(ROOT / "launch.py"), *launch),
    ]


def nobody():
    """What runs a command as a user without a name, where that can be had."""
    prefix = ["unshare", "--user", "--map-user=12345"]
    with contextlib.suppress(OSError):
        if not subprocess.run([*prefix, "true"], capture_output=True).returncode:
            return prefix
    return []


def run_all(calls, place, *options, shell="", **environment):
    """Statuses by call, and what each call printed to standard error."""
    out = place / "statuses.json"
    command = [
        *nobody(),
        sys.executable,
        *options,
        "-c",
        SCRIPT,
        json.dumps(calls),
        str(out),
    ]
    if shell:
        command = ["bash", "-c", f'exec "$@" {shell}', "-", *command]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    env = {name: value for name, value in env.items() if value is not None}
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, cwd=place / "read-only"
    )
    assert out.exists(), done.stderr
    return json.loads(out.read_text()), done.stderr.split("--\n")[:-1]


@pytest.mark.long
@pytest.mark.parametrize("platform", ["cuda", "mars"])
def test_a_platform_that_is_not_there(platform, place, finished):
    # The codec does without JAX, and the report without computing.
    calls = [
        call
        for call in commands(place, finished[0])
        if "report" not in call[0] and "codec" not in call[0]
    ]
    statuses, errors = run_all(calls, place, JAX_PLATFORMS=platform)
    assert set(statuses.values()) == {2} and len(errors) == len(calls)
    for text in errors:
        assert text.startswith(f"error: JAX_PLATFORMS={platform}: is not available")
        assert text.count("\n") == 1, text
        assert "JAX_PLATFORMS=cpu always is" in text and "emnist-jax[cuda]" in text


SITUATIONS = {
    "no docstrings, standard error closed": (["-OO"], "2>&-", {}),
    "standard output and input closed": ([], ">&- <&-", {}),
    "no home, TMPDIR missing": (
        [],
        "",
        {"HOME": None, "TMPDIR": "/nonexistent", "JAX_COMPILATION_CACHE_DIR": None},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("situation", SITUATIONS)
def test_commands_work(situation, place, finished):
    options, shell, environment = SITUATIONS[situation]
    calls = commands(place, finished[0])
    statuses, errors = run_all(calls, place, *options, shell=shell, **environment)
    assert set(statuses.values()) == {0}, (statuses, errors)
    assert len(statuses) == len(calls)
    assert np.load(place / "l").shape == (3, 32)
    assert np.load(place / "back.npy").shape == (2, 28, 28, 1)
    original = np.load(place / "images.npy")
    np.testing.assert_array_equal(np.load(place / "d.npy"), original)
    assert {"evaluated", "report.html"} <= {path.name for path in place.iterdir()}
    lines = [line for text in errors for line in text.splitlines()]
    assert all("Matplotlib created a temp" in line for line in lines), errors
    assert not any((place / "read-only").iterdir())  # nor a folder "~"

"""Node and Chromium for tests of the page; skipped where a machine lacks them."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from emnist_jax import explore

PAGE = pathlib.Path(explore.__file__).parent / "page"
WORKERS = pathlib.Path(__file__).parent / "workers"
REQUIRED = "EMNIST_JAX_REQUIRE_BROWSER"


def tool(*names: str) -> str:
    """Path of the first of some programs that is there."""
    for name in names:
        if path := shutil.which(name):
            return path
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{names[0]} is not installed and {REQUIRED}=1 asks for it")
    pytest.skip(f"{names[0]} is not installed")


def ask_node(worker: str, arguments: list, jobs: list[dict]) -> list:
    """Answers of a worker in JavaScript to some jobs."""
    command = [tool("node"), WORKERS / worker, *arguments]
    result = subprocess.run(
        command, input=json.dumps(jobs), capture_output=True, text=True, timeout=250
    )
    assert result.returncode == 0 and not result.stderr, result.stderr
    return json.loads(result.stdout)

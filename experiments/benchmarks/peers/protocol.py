"""How the benchmark talks to its workers: lines of JSON over pipes.

A worker that waits for its next command sleeps, so that it takes no time from the
others.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MEASURES = ("train", "encode", "decode")

# Runs a measure that many times and waits for the end.
Run = Callable[[int], None]


def serve(
    build: Callable[..., dict[str, Run]],
    versions: dict[str, str],
    extra: dict[str, Callable[[], float]] | None = None,
) -> None:
    """Obeys commands from stdin until it ends.

    Args:
      build: from the decoder's name, images `[B, 28, 28, 1]` uint8, latents `[B, 32]`
        and, where the command has one, the computing type to the three measures.
      versions: of the libraries that do the work.
      extra: further measurements by name.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no reply
    print(json.dumps(versions), file=replies)
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "build":
            images, latents = (np.load(command[k]) for k in ("images", "latents"))
            runs.clear()
            dtype = {"dtype": command["dtype"]} if "dtype" in command else {}
            runs.update(build(command["decoder"], images, latents, **dtype))
            reply = {name: _seconds(runs[name], 1) for name in MEASURES}
        elif command["do"] == "run":
            reply = _seconds(runs[command["measure"]], command["count"])
        else:
            reply = (extra or {})[command["do"]]()
        print(json.dumps(reply), file=replies)


def _seconds(run: Run, count: int) -> float:
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start


class Worker:
    """A worker process; use it as a context manager."""

    def __init__(self, module: str, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parents[3],  # where `experiments` lies
            env={**os.environ, **environment},
        )
        self.versions = self._reply()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Sends a command and waits for its reply."""
        print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker {self._process.args} ended: see its messages")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

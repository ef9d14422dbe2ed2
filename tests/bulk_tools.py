"""Bulk jobs of tests: how they are called, and what they leave."""

import json
import os
import pathlib

from emnist_jax.bulk import __main__ as bulk

RUN = str(pathlib.Path(__file__).parent / "golden" / "run-0.1.0")
ROWS = (5, 3, 0, 4)  # images of the fixture `sources`


def call(command, sources, out, *flags):
    pattern = f"{sources}/*" if os.path.isdir(sources) else sources
    bulk.main([command, f"--images={pattern}", f"--out={out}", *flags])


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_index(out):
    return json.loads((out / "index.json").read_text())


class Killed(BaseException):
    pass

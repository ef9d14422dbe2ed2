"""Data sets by name."""

import os
import sys
import textwrap

from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive, download, emnist, glyphs, mnist
from emnist_jax.data.splits import Dataset

NAMES = ("auto", "glyphs", *(f"emnist/{variant}" for variant in archive.VARIANTS))
NAMES += tuple(mnist.SETS)

_FRAME = 80  # columns


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    emnist_archive: str | os.PathLike | None = None,
) -> Dataset:
    """Loads a data set, upright and in its source's own order.

    Args:
      name: one of `NAMES`. `auto` is `emnist/balanced` if that is prepared, given
        as an archive or can be downloaded, and otherwise `glyphs`, with a warning.
      data_dir: where tfds keeps data sets; None for its default.
      emnist_archive: a copy of NIST's `gzip.zip`, for machines without internet.

    Raises:
      UserError: the name is unknown, or EMNIST was asked for and is not to be had.
    """
    if name not in NAMES:
        raise UserError(f"--dataset={name} is unknown: give one of {', '.join(NAMES)}")
    if name in ("glyphs", *mnist.SETS):
        if emnist_archive is not None:
            raise UserError(
                f"--emnist_archive={emnist_archive} does not go with --dataset={name}"
            )
        return glyphs.load() if name == "glyphs" else _load_mnist(name, data_dir)
    variant = "balanced" if name == "auto" else name.removeprefix("emnist/")
    try:
        return emnist.load(variant, data_dir=data_dir, emnist_archive=emnist_archive)
    except download.Unavailable as error:
        if name == "auto":
            _warn_of_glyphs(error)
            return glyphs.load()
        raise UserError(
            f"--dataset={name} is not on this machine: {error}. Give "
            "--emnist_archive=PATH, a copy of NIST's gzip.zip, or --dataset=glyphs, "
            "the built-in set"
        ) from error


def _load_mnist(name: str, data_dir: str | os.PathLike | None) -> Dataset:
    try:
        return mnist.load(name, data_dir=data_dir)
    except download.Unavailable as error:
        folder = emnist.data_folder(data_dir) / "downloads" / name
        raise UserError(
            f"--dataset={name} is not on this machine: {error}. Put its four files, "
            f"{', '.join(mnist.known_files(name))}, into {folder}"
        ) from error


def _warn_of_glyphs(error: Exception) -> None:
    lines = (
        "THIS IS NOT EMNIST",
        "The built-in glyphs are used, because EMNIST-Balanced is not here:",
        str(error),
        "To use EMNIST give --emnist_archive=PATH, a copy of NIST's gzip.zip.",
        "To hide this warning give --dataset=glyphs.",
    )
    rows = [row for line in lines for row in textwrap.wrap(line, _FRAME - 4)]
    body = "\n".join(f"* {row:<{_FRAME - 4}} *" for row in rows)
    edge = "*" * _FRAME
    print(f"\n{edge}\n{body}\n{edge}\n", file=sys.stderr, flush=True)

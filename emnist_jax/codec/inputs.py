"""The images of the codec's commands, and the flags that say how they are read."""

import argparse
import pathlib
from collections.abc import Callable, Iterator

from emnist_jax import data
from emnist_jax.cli.arguments import reading_flags, reading_options
from emnist_jax.data.images import parted

IMAGES = "images in any form (docs/data.md), or a data set (emnist/balanced)"


def add_flags(add: Callable, *without: str) -> None:
    """Adds the flags of `images_of` but for those of `without`."""
    if "split" not in without:
        add("--split", default="test", help="of a data set: train or test")
    add("--emnist_archive", help="a copy of EMNIST in any form")
    reading_flags(add, *without)


def files_of(source: str) -> Iterator[pathlib.Path]:
    """The files that a source reads, which no output may replace."""
    path, _ = parted(source)
    yield from path.rglob("*") if path.is_dir() else [path]


def images_of(arguments: argparse.Namespace, split: str | None = None) -> data.Images:
    """Reads `arguments.images` as the flags of `add_flags` say.

    Args:
      arguments: the parsed command line.
      split: which part of a data set; None is as the flag says.

    Raises:
      UserError: as `data.read_images`.
    """
    return data.read_images(
        arguments.images,
        split=split or arguments.split,
        emnist_archive=arguments.emnist_archive,
        channel=True,
        **reading_options(arguments),
    )

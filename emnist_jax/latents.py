"""Latents as `.npy` files: exported by every run, or computed from any images.

  emnist-jax latents --run=RUN --images=IMAGES --out=LATENTS.npy
  emnist-jax latents --run=RUN --latents=LATENTS.npy --out=IMAGES.npy --decode

Encoding needs only the run's encoder/, decoding only its decoder/. Files of any
length are streamed in constant memory.
"""

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from emnist_jax.cli import console
from emnist_jax.cli.arguments import Parser, reading_flags, reading_options
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.data import Split, read_images
from emnist_jax.data.images import parted
from emnist_jax.devices import parallel, processes
from emnist_jax.runs import Run
from emnist_jax.storage import paths
from emnist_jax.storage.arrays import (
    check_images,
    check_latents,
    expect_images,
    expect_latents,
    open_array,
    save_array,
    save_batches,
)


def export_latents(
    run: Run, splits: dict[str, Split], out: pathlib.Path | None = None
) -> dict[str, np.ndarray]:
    """Writes the latents of splits, with labels and source rows beside them.

    Args:
      run: the trained model.
      splits: images, labels and their rows in the source, by name: 'train', 'test'.
      out: whose latents/ folder to write to; None is the run.

    Returns:
      The latents as they lie in latents/<name>.npy, by name: memory maps of float32
      `[N, latent_dim]`, row i for image i.
    """
    folder = paths.inside(out or run.path, "latents")
    for name, split in splits.items():
        latents = run.encode(split.images, progress=f"latents of {name}")
        arrays = {"": latents, "_labels": split.labels, "_indices": split.indices}
        if processes.is_writer():
            for suffix, array in arrays.items():
                save_array(folder / f"{name}{suffix}.npy", array)
    processes.barrier("latents exported")
    return {name: open_array(folder / f"{name}.npy") for name in splits}


def convert(
    run: Run,
    source: str | os.PathLike,
    out: str | os.PathLike,
    decode: bool = False,
    **options: Any,
) -> tuple[int, ...]:
    """Encodes images, or decodes latents of a `.npy` file, into a `.npy` file.

    Args:
      run: the trained model.
      source: images in any form that `read_images` takes; to decode, latents
        `[N, latent_dim]`.
      out: float32 latents `[N, latent_dim]`; decoded, uint8 images `[N, H, W, 1]`.
      decode: decode instead of encode.
      **options: of images, as for `read_images`.

    Returns:
      Shape of the output.

    Raises:
      UserError: an input is wrong, or `out` cannot be written.
    """
    name = str(source)
    if not os.path.isdir(os.path.dirname(out) or "."):
        raise UserError(f"--out={out}: there is no such folder; make it first")
    out = paths.check_output(out, parted(os.fspath(source))[0], flag="--out=")
    if decode:
        array = open_array(source)
    else:
        array = read_images(source, round_floats=True, **options).images

    def checked(check: Callable) -> Iterator[np.ndarray]:
        what = "decoding" if decode else "encoding"
        with console.bar(len(array), what, "images") as bar:
            for batch in _batches(array):
                yield check(batch)
                bar.update(len(batch))

    if decode:
        dim = run.decoder_latent_dim
        expect_latents(array, dim, name)
        batches = checked(lambda b: check_latents(b, dim, name))
        outputs = (
            np.round(255 * images).astype(np.uint8)
            for images in run.decode_batches(batches, name)
        )
        shape, dtype = (len(array), *run.decoder_image_size, 1), np.uint8
    else:
        size = run.image_size
        expect_images(array, name, size)
        batches = checked(lambda b: check_images(b, name, size))
        outputs = run.encode_batches(batches, name)
        shape, dtype = (len(array), run.latent_dim), np.float32
    save_batches(out, outputs, shape, dtype)
    return shape


def _batches(array: np.ndarray) -> Iterator[np.ndarray]:
    step = parallel.rows_per_call()
    for start in range(0, len(array), step):
        yield np.asarray(array[start : start + step])


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--run", required=True, help="the run's folder, or pretrained/NAME")
    add("--images", help="the images to encode, in any form (docs/data.md)")
    add("--latents", help="the .npy file of latents to decode")
    add("--out", required=True, help="the .npy file to write")
    add("--decode", action="store_true", help="decode latents instead")
    add("--split", help="of a data set: train or test [default: test]")
    add("--emnist_archive", help="a copy of EMNIST in any form")
    reading_flags(add)
    flags = parser.parse_args(argv)
    # --images names the input of either way, --latents that of --decode alone.
    if flags.latents and flags.images:
        raise UserError(f"--latents={flags.latents}: does not go with --images")
    if flags.latents and not flags.decode:
        raise UserError(
            f"--latents={flags.latents}: needs --decode; to encode: --images"
        )
    source = flags.images or flags.latents
    if source is None:
        wanted = "latents" if flags.decode else "images"
        raise UserError(f"--{wanted} is missing: the .npy file to read")
    from emnist_jax import load_run

    options = reading_options(flags)
    options |= {"split": flags.split, "emnist_archive": flags.emnist_archive}
    run = load_run(flags.run, flag="--run")
    shape = convert(run, source, flags.out, flags.decode, **options)
    size = os.path.getsize(flags.out)
    print(f"{flags.out}: {'x'.join(map(str, shape))}, {size:,} bytes")


if __name__ == "__main__":
    run_command(main)

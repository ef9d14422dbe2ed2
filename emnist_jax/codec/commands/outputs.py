"""What the codec's commands write: which form a name asks for, and pictures."""

import contextlib
import csv
import io
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import notes
from emnist_jax.storage import arrays, files, paths

STDIN, STDOUT = "/dev/stdin", "-"
LABELS = "labels.csv"  # stands beside pictures
# Endings of names that promise something; what they promise must be what is written.
PROMISES = set(
    ".npy .npz .zip .tar .tgz .gz .xz .bz2 .zst .7z .png .jpg .jpeg .jxl .webp .gif "
    ".bmp .pgm .tif .tiff .pdf .csv .json .parquet .mat .idx .txt .ejx .ejm "
    ".zarr".split()
)


def check_ending(out: str, *right: str) -> None:
    """Raises `UserError` if the ending of `out` promises another form."""
    ending = pathlib.PurePath(out).suffix.lower()
    if ending in PROMISES.difference(right):
        raise UserError(
            f"cannot write {out}: {ending} promises another form; give a name with "
            f"{' or '.join(right)}"
        )


def check_output(out: str, *inputs: str | os.PathLike | None) -> str:
    """Checks the name of one file to write; `-` is standard output.

    Raises:
      UserError: as `paths.check_output`, or bytes would go to a terminal.
    """
    if out != STDOUT:
        return str(paths.check_output(out, *inputs))
    if sys.stdout.isatty():
        raise UserError("-: standard output is a terminal; name a file, or pipe it on")
    return out


def is_array(out: str) -> bool:
    """Whether `out` is to be a zarr array."""
    return pathlib.PurePath(out).suffix.lower() == ".zarr"


def check_array(out: str, *inputs: str | os.PathLike | None) -> str:
    """Checks the name of a zarr array to write: a folder, a new or an empty one.

    Raises:
      UserError: as `files.check_folder` and, where there is none, `check_output`.
    """
    out = out.rstrip(os.sep)
    files.check_folder(pathlib.Path(out))
    return out if os.path.isdir(out) else check_output(out, *inputs)


def stdin(name: str) -> str:
    """The path of an input, of which `-` is standard input."""
    return STDIN if name == STDOUT else name


def say(out: str, line: str) -> None:
    """Prints a line where it does not get into what is written to `out`."""
    print(line, file=sys.stderr if out == STDOUT else sys.stdout)


def is_folder(out: str) -> bool:
    """Whether pictures are to lie in a folder `out`."""
    return out.endswith(os.sep) or os.path.isdir(out)


def holds_more(out: str) -> bool:
    """Whether what `write` makes of `out` has room for labels and names."""
    return is_folder(out) or out.lower().endswith((".npz", ".zip"))


def write(out: str, opened, start: int, stop: int, report: Callable) -> None:
    """Writes images as the name `out` asks: .npy (also to `-`), .npz, .zip or folder.

    Args:
      out: checked, or a folder that is empty or does not exist.
      opened: the `CompressedImages`.
      start: first image.
      stop: end of the images.
      report: called with numbers of images done.

    Raises:
      UserError: `out` cannot be written, or a name is unsafe.
    """
    pieces, shape = (
        opened.pieces(start, stop, report),
        (stop - start, *opened.shape[1:]),
    )
    ending = pathlib.PurePath(out).suffix.lower()
    if is_folder(out) or ending == ".zip":
        names = _picture_names(opened, start, stop)
        keep = _in_folder if is_folder(out) else _in_zip
        with keep(pathlib.Path(out)) as save:
            _save_pictures(save, names, pieces)
            if opened.labels is not None:
                save(LABELS, _table(names, opened.labels[start:stop]))
    elif ending == ".npz":
        held = {"images": np.concatenate([np.empty((0, *shape[1:]), "u1"), *pieces])}
        if opened.labels is not None:
            held["labels"] = opened.labels[start:stop]
        if opened.names is not None:
            held["names"] = np.array(opened.names[start:stop], np.str_)
        arrays.write_archive(out, held)
    elif out == STDOUT:
        arrays.write_batches(sys.stdout.buffer, pieces, shape, np.uint8)
    else:
        arrays.save_batches(out, pieces, shape, np.uint8)


def _picture_names(opened, start: int, stop: int) -> list[str]:
    """Names of PNG files, for images that have none by their numbers."""
    if opened.names is None:
        digits = len(str(len(opened)))
        return [f"{index:0{digits}}.png" for index in range(start, stop)]
    names = [
        name if name.lower().endswith(".png") else f"{name}.png"
        for name in opened.names[start:stop]
    ]
    notes.check_names([*names, LABELS], "the file")
    return names


def _save_pictures(save: Callable, names: list[str], pieces: Iterator) -> None:
    from PIL import Image

    left = iter(names)
    for piece in pieces:
        for image in piece.reshape(piece.shape[:3]):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            save(next(left), content.getvalue())


def _table(names: list[str], labels: np.ndarray) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("name", "label"))
    table.writerows(zip(names, labels.tolist(), strict=True))
    return text.getvalue().encode()


@contextlib.contextmanager
def _in_folder(out: pathlib.Path) -> Iterator[Callable[[str, bytes], None]]:
    with files.write_folder(out) as folder:
        folder.mkdir()

        def save(name: str, content: bytes) -> None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:  # names may differ in case alone
                file.write(content)

        yield save


@contextlib.contextmanager
def _in_zip(out: pathlib.Path) -> Iterator[Callable[[str, bytes], None]]:
    with files.write_atomically(out) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:  # PNG is compressed
            yield lambda name, content: archive.writestr(zipfile.ZipInfo(name), content)

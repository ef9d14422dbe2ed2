"""Pictures: single files, folders, zip and tar; what lies in archives stays there."""

import io
import math
import os
import pathlib
import re
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data.found import Found
from emnist_jax.data.values import Options, to_gray
from emnist_jax.storage import files, zipped
from emnist_jax.storage.arrays import DEFLATE_RATIO

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "TIFF")
_PACKINGS = (None, "raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
_SMALLEST = 4096  # bytes that a picture may always have been before it was packed
_AT_ONCE = 1024  # pictures of one size that make a piece

Picture = tuple[str, BinaryIO, int]  # name, content, bytes it takes packed


def is_picture(name: str) -> bool:
    """Whether the ending is that of a picture, in capitals too."""
    return pathlib.PurePath(name).suffix.lower() in ENDINGS


def read_file(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """One picture; a TIFF may have pages."""
    del chosen

    def pictures() -> Iterator[Picture]:
        with files.open_regular(path) as file:
            yield path.name, file, os.fstat(file.fileno()).st_size

    return Found(pieces(pictures(), str(path), options))


def read_folder(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """A folder's pictures and those of its subfolders, in natural order of names."""
    del chosen

    def refuse(error: OSError) -> None:
        raise error

    names = []
    for folder, _, found in os.walk(path, onerror=refuse):
        names += [os.path.relpath(os.path.join(folder, name), path) for name in found]
    chosen_names = _chosen(path, names)

    def pictures() -> Iterator[Picture]:
        for name in chosen_names:
            with files.open_regular(path / name) as file:
                yield name, file, os.fstat(file.fileno()).st_size

    return Found(pieces(pictures(), str(path), options))


def read_zip(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """Pictures of a zip archive, of the folder `chosen` in it or of all."""

    def pictures() -> Iterator[Picture]:
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
            left = DEFLATE_RATIO * os.fstat(file.fileno()).st_size
            names = [n for n in archive.namelist() if not n.endswith("/")]
            for name in _chosen(path, names, chosen):
                info = zipped.member(archive, name)
                left -= info.file_size
                if left < 0:
                    raise ValueError("its members overlap, or claim more than fits")
                content = io.BytesIO(archive.read(info))
                yield name, content, min(info.file_size, info.compress_size)

    return Found(pieces(pictures(), str(path), options))


def read_tar(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """Pictures of a tar archive, gzipped or not, in the archive's order."""

    def pictures() -> Iterator[Picture]:
        found = 0
        with (
            files.open_regular(path) as file,
            tarfile.open(fileobj=file, mode="r|*") as archive,
        ):
            held = DEFLATE_RATIO * os.fstat(file.fileno()).st_size
            for member in archive:
                if not (member.isreg() and is_picture(member.name)):
                    continue
                if chosen and not member.name.startswith(f"{chosen}/"):
                    continue
                if member.size > held or member.sparse:
                    raise ValueError(f"{member.name} claims {member.size} bytes")
                found += 1
                content = archive.extractfile(member).read()
                yield member.name, io.BytesIO(content), len(content)
        if not found:
            raise UserError(f"{path} holds no pictures ({', '.join(ENDINGS)})")

    return Found(pieces(pictures(), str(path), options))


def classes_of(names: list[str]) -> list[str] | None:
    """The folder of each picture, if they lie in two folders or more of one level."""
    folders = [pathlib.PurePosixPath(name.replace(os.sep, "/")).parts for name in names]
    if len({len(parts) for parts in folders}) != 1 or len(folders[0]) < 2:
        return None
    classes = [parts[-2] for parts in folders]
    return classes if len({parts[:-1] for parts in folders}) > 1 else None


def _chosen(
    path: pathlib.Path, names: list[str], folder: str | None = None
) -> list[str]:
    """Those that are pictures, in natural order; tells what is left out."""
    if folder:
        names = [name for name in names if name.startswith(f"{folder}/")]
    chosen = sorted(filter(is_picture, names), key=_natural)
    if not chosen:
        raise UserError(f"{path} holds no pictures ({', '.join(ENDINGS)})")
    if others := sorted({*names} - {*chosen}):
        more = ", ..." if len(others) > 3 else ""
        print(
            f"warning: {path}: {len(others)} of {len(names)} files are no pictures and "
            f"are left out ({', '.join(others[:3])}{more})",
            file=sys.stderr,
        )
    return chosen


def _natural(name: str) -> tuple:
    parts = re.split(r"([0-9]+)", name)
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def pieces(pictures: Iterator[Picture], source: str, options: Options) -> Iterator:
    """Pictures one after the other, as pieces of one size each."""
    images, names = [], []
    for name, content, held in pictures:
        label = name if name == os.path.basename(source) else f"{source}/{name}"
        for page, image in enumerate(_frames(content, held, label, options)):
            if images and (image.shape != images[0].shape or len(images) == _AT_ONCE):
                yield np.stack(images), None, names
                images, names = [], []
            images.append(image)
            names.append(f"{name}#{page}" if page else name)
    if images:
        yield np.stack(images), None, names


def _frames(
    file: BinaryIO, held: int, name: str, options: Options
) -> Iterator[np.ndarray]:
    """uint8 [height, width] of each page of a picture."""
    from PIL import Image

    left = DEFLATE_RATIO * max(held, _SMALLEST if held else 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked here
            with Image.open(file, formats=FORMATS) as image:
                if image.info.get("compression") not in _PACKINGS:
                    raise ValueError(f"packed by {image.info['compression']}")
                pages = image.n_frames if image.format == "TIFF" else 1
                for page in range(pages):
                    image.seek(page)
                    bits = 8 if image.mode == "1" else 1
                    left -= math.prod(image.size) // bits
                    if left < 0:
                        raise ValueError(
                            f"{image.size} pixels cannot be in so small a file"
                        )
                    yield _gray(image, name, options)
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"cannot read {name}: {reason}") from error


def _gray(image, name: str, options: Options) -> np.ndarray:
    mode = image.mode
    if mode in ("L", "1"):
        if "transparency" not in image.info:
            return np.asarray(image.convert("L"))
        mode = "P"
    if mode in ("I", "I;16", "I;16B", "I;16L"):
        wide = np.asarray(image).astype(np.int64)
        if options.value_range is not None:  # is done with all pictures together
            return wide
        if wide.min() < 0 or wide.max() > 65535:
            raise UserError(
                f"{name}: values from {wide.min()} to {wide.max()}; name the range "
                "with --value_range=LOW:HIGH"
            )
        if (wide % 257).any() and not options.convert:
            raise UserError(
                f"{name}: its 16 bits do not fit in 8; round them with --convert, or "
                "name black and white with --value_range=LOW:HIGH"
            )
        return ((wide + 128) // 257).astype(np.uint8)
    if mode in ("P", "PA"):
        alpha = mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if alpha else "RGB")
    elif mode not in ("RGB", "RGBA", "LA"):
        if not options.convert:
            raise UserError(f"{name}: has mode {mode}; turn it gray with --convert")
        image = image.convert("RGB")
    return to_gray(np.asarray(image)[None], options, name)[0]

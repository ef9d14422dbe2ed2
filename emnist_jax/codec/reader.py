"""Opening and decompressing compressed files."""

import bisect
import contextlib
import functools
import mmap
import os
from collections.abc import Iterator

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import (
    blocks,
    container,
    indexing,
    latent_coding,
    mapping,
    model_file,
    notes,
)
from emnist_jax.codec.blocks import Report, WholeImages, coded_together, silent

HELD_PIXELS = 1 << 22  # of decoded blocks that an open file keeps


def decompress(content: bytes, *, model=None, run=None) -> np.ndarray:
    """Decompresses what `compress` returned.

    Args:
      content: of a compressed file.
      model: a model file, if the pixel model neither ships with the package nor is
        embedded.
      run: for mode `latent`, the trained autoencoder.

    Returns:
      uint8, in the shape given to `compress`.

    Raises:
      UserError: the content is damaged or foreign, or its model is missing.
    """
    return CompressedImages(content, "the content", model=model, run=run).read()


class CompressedImages(indexing.ImageArray):
    """Images in a compressed file: an array of uint8 that is decoded when asked for.

    It pickles as its path, and may be read in threads and in forked processes.

    Attributes:
      head: the file's head.
      shape: of the whole array, as it was compressed.
    """

    def __init__(self, content, name: str, *, model=None, run=None):
        """Reads the head of `content`, a buffer with the whole file, `name`."""
        if not isinstance(content, (bytes, bytearray, memoryview, mmap.mmap)):
            raise UserError(
                f"content is {type(content).__name__}: give bytes, or a path to open"
            )
        self._content, self._name = content, name
        self.head = container.parse(content, len(content), name)
        self.shape = self.head.shape
        self._coder = self._find_coder(model, run)
        if self.head.model_length:
            model = None  # not asked for
        elif (
            isinstance(model, str | os.PathLike) and str(model) not in model_file.NAMES
        ):
            model = os.path.abspath(model)
        self._path = os.path.abspath(name) if isinstance(content, mmap.mmap) else None
        self._options = {"model": model, "run": run}  # what `__reduce__` gives again
        self._held: dict[int, np.ndarray] = {}  # decoded blocks, the last used last

    def _find_coder(self, model, run):
        head = self.head
        embedded = None
        if head.model_length:
            embedded = bytes(self._content[head.end : head.end + head.model_length])
        if head.mode == container.LATENT:
            return latent_coding.restore(run, embedded, head, self._name)
        if embedded is not None:
            pixel_model, digest = model_file.from_bytes(embedded, self._name)
        elif model is not None:
            pixel_model, digest, _ = model_file.load(model)
        else:
            pixel_model, digest = model_file.find(head.digest), head.digest
        if digest != head.digest:
            given = "model" if isinstance(model, bytes) else f"model={model}"
            raise UserError(
                f"{given} is pixel model {digest.hex()}; {self._name} was "
                f"made with {head.digest.hex()}"
            )
        shape = head.height, head.width
        weight = 0 if head.mode == container.LOSSY else None
        return blocks.PixelCoder(pixel_model, shape, head.parameter, weight)

    @property
    def promise(self) -> tuple[int, int]:
        """Mode and parameter of the head."""
        return self.head.mode, self.head.parameter

    @functools.cached_property
    def _notes(self) -> tuple:
        start = self.head.end + self.head.model_length
        packed = bytes(self._content[start : start + self.head.notes_length])
        return notes.unpack(packed, self.head, self._name) if packed else (None, None)

    @property
    def labels(self) -> np.ndarray | None:
        """int64 [N], if the file keeps labels; raises `UserError` if damaged."""
        return self._notes[0]

    @property
    def names(self) -> list[str] | None:
        """Relative paths, one an image, if the file keeps names; all are checked.

        Raises:
          UserError: they are damaged or could write outside of a folder.
        """
        return self._notes[1]

    def __reduce__(self) -> tuple:
        """Pickles as its path, or as its bytes where it was opened from those."""
        if self._path is not None:
            again = functools.partial(open_file, self._path, **self._options)
        else:
            content = bytes(self._content)
            again = functools.partial(
                CompressedImages, content, self._name, **self._options
            )
        return again, ()

    def close(self) -> None:
        """Lets go of the file."""
        if isinstance(self._content, mmap.mmap):
            self._content.close()

    def one(self, wanted: int) -> np.ndarray:
        """One image; threads may call this at once."""
        number = self._number(wanted)
        block = self._held.pop(number, None)
        if block is None:
            (block,) = self._load([number])
        self._held[number] = block  # the last one again
        for oldest in list(self._held)[: -max(1, HELD_PIXELS // block.nbytes)]:
            self._held.pop(oldest, None)
        place = wanted - self.head.blocks[number].first
        return self._images(block[place : place + 1])[0].copy()

    def _number(self, image: int) -> int:
        """The number of the block that an image is in."""
        return bisect.bisect_right(self.head.blocks, image, key=lambda b: b.first) - 1

    def gather(self, wanted: np.ndarray) -> np.ndarray:
        """Images int64 [...] in any order, [..., *image]."""
        index, flat = self.head.blocks, wanted.reshape(-1)
        places = indexing.by_block(flat, np.array([block.first for block in index]))
        needed = list(places)
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for together in coded_together(self.head, len(needed)):
            numbers = needed[together.start : together.stop]
            for number, block in zip(numbers, self._load(numbers), strict=True):
                at = places[number]
                found[at] = self._images(block[flat[at] - index[number].first])
        return found.reshape(*wanted.shape, *self.shape[1:])

    def _load(self, numbers, report=lambda share: None) -> list[np.ndarray]:
        entries = [self.head.blocks[number] for number in numbers]
        payloads = [
            bytes(self._content[entry.offset : entry.offset + entry.length])
            for entry in entries
        ]
        return blocks.load(self._coder, entries, payloads, self._name, report)

    def _images(self, decoded: np.ndarray) -> np.ndarray:
        """[n, *coder.shape] to images in the outer shape."""
        if self.head.mode == container.LATENT:
            decoded = self._coder.images(decoded)
            if decoded.shape[1:] != (self.head.height, self.head.width):
                wanted, made = self.shape[1:3], decoded.shape[1:]
                raise UserError(
                    f"{self._name} holds images of {wanted}, run's are of {made}"
                )
        if self.head.features & container.INVERTED:
            decoded = np.invert(decoded)
        return decoded[..., None] if self.head.trailing_axis else decoded

    def pieces(
        self, start: int = 0, stop: int | None = None, report: Report = silent
    ) -> Iterator[np.ndarray]:
        """Yields the images from `start` to `stop` in order, a few blocks at a time."""
        stop = len(self) if stop is None else min(stop, len(self))
        index = self.head.blocks
        needed = range(0)
        if start < stop:
            needed = range(self._number(start), self._number(stop - 1) + 1)
        for together in coded_together(self.head, len(needed)):
            numbers = needed[together.start : together.stop]
            told = WholeImages(sum(index[number].images for number in numbers), report)
            decoded = self._load(numbers, told.add)
            for number, block in zip(numbers, decoded, strict=True):
                first = index[number].first
                low, high = max(start - first, 0), min(stop - first, len(block))
                yield self._images(block[low:high])
            told.end()


def open_file(path: str | os.PathLike, *, model=None, run=None) -> CompressedImages:
    """Opens a compressed file; images are read and decoded as they are asked for.

    Args:
      path: the file.
      model: a model file, if the pixel model neither ships with the package nor is
        embedded.
      run: for mode `latent`, the trained autoencoder.

    Returns:
      The images; `close` them, or use `with`.

    Raises:
      UserError: it cannot be read, is damaged or foreign, or its model is missing.
    """
    with contextlib.ExitStack() as stack:
        content = mapping.map_file(path)
        if isinstance(content, mmap.mmap):
            stack.callback(content.close)
        opened = CompressedImages(content, str(path), model=model, run=run)
        stack.pop_all()
    return opened

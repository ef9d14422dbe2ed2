"""Which blocks are coded together, and telling how far that is."""

from collections.abc import Callable, Iterator

from emnist_jax.codec.container import Head

BATCH_PIXELS = 8192 * 784  # of the blocks coded together
Report = Callable[[int], None]


def silent(images: int) -> None:
    """Reports nothing."""


def batches(head: Head) -> Iterator[range]:
    """First images of the blocks coded together, in batches of about equal size."""
    starts = range(0, head.images, head.block_images)
    pixels = head.block_images * head.height * head.width
    most = max(1, BATCH_PIXELS // pixels)
    pieces = -(-len(starts) // most)
    for piece in range(pieces):
        low, high = (len(starts) * at // pieces for at in (piece, piece + 1))
        yield starts[low:high]


class Progress:
    """Turns shares of a batch into whole images."""

    def __init__(self, images: int, report: Report):
        """Takes the number of images in the batch, and whom to tell."""
        self._images, self._report, self._share, self._told = images, report, 0.0, 0

    def add(self, share: float) -> None:
        """Reports the images that a further `share` of the work stands for."""
        self._share += share
        self._tell(min(int(self._share * self._images), self._images))

    def end(self) -> None:
        """Reports the images still missing."""
        self._tell(self._images)

    def _tell(self, images: int) -> None:
        self._report(images - self._told)
        self._told = images

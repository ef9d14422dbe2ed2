"""How the values of a pixel are cut up: what is coded of it.

Lossless: into bins, then places in a bin. Near-lossless: into *spans* of at most
2E + 1 values. Span 0 is 0..E and comes back as 0. The values after it are cut into
spans of 2E + 1, of which the first holds `phase` values, 1..2E + 1; each comes back
as its middle. The coder takes, pixel by pixel, the phase with the least expected bits,
so that a span lies over what the model expects instead of being cut there.
"""

import dataclasses
import functools

import numpy as np

# First value of each bin. Pixels pile up near 0 and at 250..255, so bins are
# narrow there; none is wider than 16.
BIN_STARTS = np.array([0, 1, 4, 8, *range(16, 256, 16), 248, 254, 255])
BIN_WIDTHS = np.diff(np.append(BIN_STARTS, 256))
BINS, WIDEST = len(BIN_STARTS), 16
BIN_OF_VALUE = np.repeat(np.arange(BINS), BIN_WIDTHS)
PLACE_IN_BIN = np.arange(256) - BIN_STARTS[BIN_OF_VALUE]
PLACES = np.arange(WIDEST)[None] < BIN_WIDTHS[:, None]  # [BINS, WIDEST] that exist


# What a symbol costs by its frequency, in 2**-16 bits, for an encoder that weighs bits
# against squared errors.
COSTS = 16 - np.log2(np.maximum(np.arange(65537), 1))
COSTS = np.round(COSTS * 65536).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Spans:
    """All ways to cut 0..255 into spans for one error bound; index 0 is phase 1.

    Attributes:
      exists: bool [phases, spans]; the last ones may be empty.
      of_value: uint8 [phases, 256], the span each value lies in.
      value: uint8 [phases, spans], what comes back for each span.
    """

    exists: np.ndarray
    of_value: np.ndarray
    value: np.ndarray

    def members(self) -> np.ndarray:
        """bool [256, phases, spans]: whether a value lies in a span."""
        index = np.arange(self.exists.shape[1])
        return self.of_value.T[..., None] == index[None, None]


@functools.lru_cache
def spans(max_error: int) -> Spans:
    """The spans for an error bound of 1 to 127."""
    width, rest = 2 * max_error + 1, 255 - max_error  # values after span 0
    phases = np.arange(1, min(width, rest) + 1)
    number = 1 + -(-(rest - 1) // width)  # of spans after span 0 at phase 1
    ends = max_error + 1 + phases[:, None] + width * np.arange(number)
    ends = np.minimum(np.insert(ends, 0, max_error + 1, axis=1), 256)
    starts = np.insert(ends[:, :-1], 0, -max_error, axis=1)
    of_value = (np.arange(256)[None, :, None] >= ends[:, None]).sum(axis=2)
    return Spans(
        exists=starts < ends,
        of_value=of_value.astype(np.uint8),
        value=np.minimum((starts + ends - 1) // 2, 255).astype(np.uint8),
    )


def rounded(images: np.ndarray, max_error: int) -> np.ndarray:
    """uint8 images, each pixel within `max_error`, easy to code without a model."""
    if not max_error:
        return images
    whole = spans(max_error)
    return whole.value[-1][whole.of_value[-1]][images]

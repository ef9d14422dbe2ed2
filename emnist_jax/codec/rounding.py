"""Near-lossless steps: pixels are coded as intervals of at most 2E + 1 values.

Step 0 is 0..E and comes back as 0. The values after it are cut into steps of
2E + 1, of which the first holds `phase` values, 1..2E + 1; each comes back as its
middle. The coder takes, pixel by pixel, the phase with the least expected bits, so
that a step lies over what the model expects instead of being cut there.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Steps:
    """All ways to cut 0..255 into steps for one error bound; index 0 is phase 1.

    Attributes:
      exists: bool [phases, steps]; the last ones may be empty.
      of_value: uint8 [phases, 256], the step each value lies in.
      value: uint8 [phases, steps], what comes back for each step.
    """

    exists: np.ndarray
    of_value: np.ndarray
    value: np.ndarray

    def members(self) -> np.ndarray:
        """bool [256, phases, steps]: whether a value lies in a step."""
        steps = np.arange(self.exists.shape[1])
        return self.of_value.T[..., None] == steps[None, None]


@functools.lru_cache
def steps(max_error: int) -> Steps:
    """The steps for an error bound of 1 to 127."""
    width, rest = 2 * max_error + 1, 255 - max_error  # values after step 0
    phases = np.arange(1, min(width, rest) + 1)
    number = 1 + -(-(rest - 1) // width)  # of steps after step 0 at phase 1
    ends = max_error + 1 + phases[:, None] + width * np.arange(number)
    ends = np.minimum(np.insert(ends, 0, max_error + 1, axis=1), 256)
    starts = np.insert(ends[:, :-1], 0, -max_error, axis=1)
    of_value = (np.arange(256)[None, :, None] >= ends[:, None]).sum(axis=2)
    return Steps(
        exists=starts < ends,
        of_value=of_value.astype(np.uint8),
        value=np.minimum((starts + ends - 1) // 2, 255).astype(np.uint8),
    )


def rounded(images: np.ndarray, max_error: int) -> np.ndarray:
    """uint8 images, each pixel within `max_error`, easy to code without a model."""
    if not max_error:
        return images
    whole = steps(max_error)
    return whole.value[-1][whole.of_value[-1]][images]

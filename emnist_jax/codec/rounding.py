"""Near-lossless rounding: pixels move to the middle of steps of equal width."""

import numpy as np


def steps(max_error: int) -> tuple[np.ndarray, np.ndarray]:
    """The step of each of 256 values, and the value that stands for each step."""
    step = 2 * max_error + 1
    step_of_value = (np.arange(256) + max_error) // step
    return step_of_value, np.minimum(np.arange(step_of_value[-1] + 1) * step, 255)


def rounded(images: np.ndarray, max_error: int) -> np.ndarray:
    """uint8 images with every pixel moved to what stands for its step."""
    if not max_error:
        return images
    step_of_value, value_of_step = steps(max_error)
    return value_of_step.astype(np.uint8)[step_of_value[images]]

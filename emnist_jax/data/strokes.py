"""Paths along skeletons: splines through their points, as tables to draw from.

Like `glyphs`, this uses only arithmetic that IEEE 754 fixes to the last bit.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np

from emnist_jax.data.skeletons import SKELETONS

PATH_POINTS = 96  # along all strokes of a character


@dataclasses.dataclass(frozen=True)
class Tables:
    """All ways to write all characters, ready to be drawn at once.

    Attributes:
      first_way: [47], where the ways of each character begin.
      ways: [47], how many there are.
      control: [ways, K, 2], x and y of the points of the skeleton.
      index: [ways, points, 4], the four of them that each point of the path
        depends on.
      curved: [ways, points, 4], their weights for a Catmull-Rom spline.
      straight: [ways, points, 4], their weights for straight spans.
      before: [ways, points], the point before on the same stroke, or itself.
      after: [ways, points], the point after on the same stroke, or itself.
    """

    first_way: np.ndarray
    ways: np.ndarray
    control: np.ndarray
    index: np.ndarray
    curved: np.ndarray
    straight: np.ndarray
    before: np.ndarray
    after: np.ndarray


@functools.cache
def tables() -> Tables:
    """Lays a path along every skeleton."""
    ways = [len(skeletons) for skeletons in SKELETONS.values()]
    every = [_trace(text) for skeletons in SKELETONS.values() for text in skeletons]
    most = max(len(control) for control, *_ in every)
    control = np.zeros([len(every), most, 2])
    for row, (points, *_) in enumerate(every):
        control[row, : len(points)] = points
    columns = [np.stack(column) for column in list(zip(*every, strict=True))[1:]]
    return Tables(np.cumsum([0, *ways[:-1]]), np.array(ways), control, *columns)


def _trace(text: str) -> tuple[np.ndarray, ...]:
    """Lays `PATH_POINTS` points evenly along one skeleton.

    Returns:
      (control, index, curved, straight, before, after), as in `Tables`.
    """
    control, spans, ends = [], [], []  # a span: its four points of the skeleton
    for stroke in text.split("/"):
        first = len(control)
        words = stroke.split()
        control += [[float(v) for v in w.rstrip("!").split(",")] for w in words]
        corners = [k for k, word in enumerate(words) if word.endswith("!")]
        bounds = sorted({0, *corners, len(words) - 1})
        for low, high in itertools.pairwise(bounds):
            for k in range(low, high):
                four = (max(k - 1, low), k, k + 1, min(k + 2, high))
                spans.append([first + point for point in four])
        ends.append(len(spans))
    control = np.array(control)

    # Every span gets points in proportion to its length, every stroke its end.
    steps = [(control[span[2]] - control[span[1]]).tolist() for span in spans]
    reached = list(itertools.accumulate(math.sqrt(x * x + y * y) for x, y in steps))
    to_share = PATH_POINTS - len(ends) - len(spans)
    placed = [int(to_share * length / reached[-1] + 0.5) for length in reached]
    counts = [1 + b - a for a, b in itertools.pairwise([0, *placed])]
    index, curved, straight, stroke_of = [], [], [], []
    for number, (span, count) in enumerate(zip(spans, counts, strict=True)):
        is_end = number + 1 in ends
        for step in range(count + is_end):
            index.append(span)
            curved.append(_catmull_rom(step / count))
            straight.append([0, 1 - step / count, step / count, 0])
            stroke_of.append(sum(number >= end for end in ends))
    stroke_of = np.array(stroke_of)
    rows = np.arange(PATH_POINTS)
    before, after = np.maximum(rows - 1, 0), np.minimum(rows + 1, PATH_POINTS - 1)
    return (
        control,
        np.array(index),
        np.array(curved),
        np.array(straight),
        np.where(stroke_of[before] == stroke_of, before, rows),
        np.where(stroke_of[after] == stroke_of, after, rows),
    )


def _catmull_rom(t: float) -> list[float]:
    """Weights of four points for the place `t` between the second and the third."""
    return [
        0.5 * (-t + 2 * t * t - t * t * t),
        0.5 * (2 - 5 * t * t + 3 * t * t * t),
        0.5 * (t + 4 * t * t - 3 * t * t * t),
        0.5 * (-t * t + t * t * t),
    ]

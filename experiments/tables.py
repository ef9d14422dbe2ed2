"""Markdown tables of the studies, and the statistics that stand in them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def markdown(headings: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table.

    Args:
      headings: separated by ' | '.
      rows: as many cells each, texts or numbers; a name goes through `plain`.
    """
    columns = headings.split(" | ")
    lines = [
        "|" + "".join(f" {cell}".rstrip() + " |" for cell in row)
        for row in [columns, *rows]
    ]
    lines.insert(1, f"|{'---|' * len(columns)}")
    return "\n".join(lines) + "\n"


def plain(name: object) -> str:
    """A name as Markdown that shows it as it is, on one line."""
    return re.sub(
        r"([\\`*|<\[]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(str(name).split())
    )


def mean_and_std(name: str, values: Iterable[float]) -> dict[str, float]:
    """`{name: mean, name_std: sample standard deviation}`, as far as they exist."""
    values = np.array(list(values), float)
    found = {}
    if len(values):
        found[name] = float(values.mean())
    if len(values) > 1:
        found[f"{name}_std"] = float(values.std(ddof=1))
    return found


def plus_minus(cell: Mapping[str, Any], name: str, digits: int) -> str:
    """'mean ± standard deviation' of what `mean_and_std` found, as far as it exists."""
    if name not in cell:
        return "-"
    text = f"{cell[name]:.{digits}f}"
    std = cell.get(f"{name}_std")
    return text if std is None else f"{text} ± {std:.{digits}f}"


def paired_difference(
    values: Mapping[int, float], base: Mapping[int, float]
) -> dict[str, Any] | None:
    """Mean of values - base over the seeds in both, with a 95% confidence interval.

    Args:
      values: a measurement by seed.
      base: the same measurement of what it is compared with, by seed.

    Returns:
      'n', 'difference' and 'interval_95' (Student's t); None for fewer than 2 pairs.
    """
    seeds = sorted(values.keys() & base.keys())
    if len(seeds) < 2:
        return None
    from scipy.stats import t

    gaps = np.array([values[seed] - base[seed] for seed in seeds])
    mean = float(gaps.mean())
    half = float(t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5)
    interval = [mean - half, mean + half]
    return {"n": len(gaps), "difference": mean, "interval_95": interval}


def format_difference(found: Mapping[str, Any] | None, digits: int = 5) -> str:
    """A paired difference as text; says so when its interval leaves 0 out."""
    if found is None:
        return "-"
    low, high = found["interval_95"]
    verdict = "" if low <= 0 <= high else ", not 0"
    return (
        f"{found['difference']:+.{digits}f} "
        f"({low:+.{digits}f} to {high:+.{digits}f}{verdict})"
    )

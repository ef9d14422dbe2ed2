"""Result files: one schema for every producer, and the log of a training run.

`results.json` (schema 'emnist_jax.results/1'):

  schema       str
  name         str, the run's name
  status       'finished'; 'dead' or 'diverged' with 'error' and without what follows
               training; 'imported' with 'origin', and test only once it is evaluated
  origin       of imported weights: SHA-256 of their files, and who saved them
  dataset      name, title, source facts (SHA-256 of the archive, ...), image_size
               (height, width; else 28x28), and how many images train, validation
               and test hold; null before an imported run is evaluated
  config       every setting in force, see `Config`
  model        parameters and multiply-adds by part, layers
  training     epochs, steps, best_epoch, best_step, stopped ('completed' or
               'early stopping'), train_loss and validation_loss of the best epoch
  test         autoencoder and decoder_only: means over the test images of
               `metrics.quality`, and psnr_of_mean_mse; largest_difference between
               their reconstructions; active_latents; published_protocol
  sizes        how many training images, their bytes and those of their latents
  environment  versions, device, how many devices and processes
  timing       seconds and images/s: all that differs when a run is repeated
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from emnist_jax import __version__
from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files, paths

SCHEMA = "emnist_jax.results/1"
_LOSSES = {"step": ["loss"], "epoch": ["train_loss", "validation_loss"]}


def environment() -> dict[str, Any]:
    """Versions and hardware that a result depends on."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "emnist_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def record(name: str, status: str, **parts: Any) -> dict[str, Any]:
    """A new record in the form above: every one begins here.

    Args:
      name: of the run.
      status: see above.
      **parts: its other parts.
    """
    return {
        "schema": SCHEMA,
        "name": name,
        "status": status,
        **parts,
        "environment": environment(),
    }


def sizes(images: np.ndarray, latents: np.memmap) -> dict[str, float]:
    """The published study's size table, from the arrays themselves.

    Args:
      images: uint8 training images.
      latents: float32 latents of them, mapped from their file.

    Returns:
      How many images, and bytes; the study prints them as MB, meaning 2**20 bytes.
    """
    return {
        "images": len(images),
        "images_uint8_bytes": images.nbytes,
        "images_float32_bytes": images.size * 4,
        "latents_bytes": latents.nbytes,
        "latents_file_bytes": os.path.getsize(latents.filename),
        "bits_per_pixel": 8 * latents.nbytes / images.size,
    }


def load_results(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a run's `results.json`.

    Args:
      path: the file or the run's folder.

    Raises:
      UserError: it is missing, damaged or of another schema.
    """
    path = pathlib.Path(path)
    path = path / "results.json" if path.is_dir() else path
    results = files.read_json(path)
    if results.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {results.get('schema')!r}, expected {SCHEMA}")
    for field in ("dataset", "test", "timing"):
        if not isinstance(results.get(field), dict | None):
            raise UserError(f"{path}: {field!r} is no JSON object")
    return results


class MetricsLog:
    """`metrics.jsonl`: a JSON object a line, each with a 'step'."""

    def __init__(self, path: pathlib.Path, tensorboard: pathlib.Path | None = None):
        """Appends to `path`, and to TensorBoard events in a folder if one is given.

        Raises:
          UserError: tensorboardX, which writes events, is not installed.
        """
        self.path = path
        self._writer = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise UserError(
                    "--tensorboard: tensorboardX is not installed; "
                    "pip install 'emnist-jax[tensorboard]'"
                ) from error
            self._writer = SummaryWriter(str(tensorboard))

    def rewind(self, step: int, epochs: int, warn: Callable[[str], None]) -> None:
        """Drops what will be logged again.

        Args:
          step: how many steps are done.
          epochs: how many epochs are done, validation included.
          warn: gets a line for each damaged line.
        """
        if self.path.exists():
            kept = [
                line
                for line in read_metrics(self.path, warn)
                if line["step"] <= step
                and (line["event"] == "step" or line["epoch"] <= epochs)
            ]
            with files.write_atomically(self.path) as temporary:
                temporary.write_text("".join(json.dumps(x) + "\n" for x in kept))

    def write(self, **values: Any) -> None:
        """Appends a line.

        Raises:
          UserError: it cannot be written, or the disk is full.
        """
        try:
            with open(self.path, "a", opener=paths.no_link) as file:
                file.write(json.dumps(values, allow_nan=False) + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {self.path}: {reason}") from error
        if self._writer:
            for name, value in values.items():
                if isinstance(value, int | float) and name != "step":
                    tag = f"{values['event']}/{name}"
                    self._writer.add_scalar(tag, value, values["step"])
            self._writer.flush()

    @contextlib.contextmanager
    def closing(self) -> Iterator["MetricsLog"]:
        """Closes the TensorBoard events at the end of the block."""
        try:
            yield self
        finally:
            if self._writer:
                self._writer.close()


def read_metrics(path: pathlib.Path, warn: Callable[[str], None]) -> list[dict]:
    """The lines of a metrics log; torn or foreign ones are reported and left out.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    lines = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            value = json.loads(line)
            numbers = [
                value[name] for name in ("step", "epoch", *_LOSSES[value["event"]])
            ]
            if not all(isinstance(x, int | float) for x in numbers):
                raise TypeError
            lines.append(value)
        except (ValueError, TypeError, KeyError, RecursionError):
            warn(f"{path}: line {number} is damaged and left out")
    return lines


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

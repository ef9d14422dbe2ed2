"""Learned compression of small grayscale images in JAX.

Example:
  images, labels, *_ = emnist_jax.read_images('pictures/')  # uint8 [N, H, W]
  run = emnist_jax.load_run('runs/glyphs-model03-best-seed0')
  latents = run.encode(images)       # float32 [N, 32]
  images = run.decode(latents)       # float32 [N, 28, 28, 1] in [0, 1]
"""

from typing import Any

from emnist_jax.cli.errors import UserError

__version__ = "0.1.0"
__all__ = ["Run", "UserError", "load_pretrained", "load_run", "read_images"]


def __getattr__(name: str) -> Any:
    # JAX takes a second to import, which `--help` need not wait for.
    if name in ("Run", "load_pretrained", "load_run"):
        from emnist_jax import runs

        return getattr(runs, name)
    if name == "read_images":
        from emnist_jax import data

        return data.read_images
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Chunks of arrays: each is a whole compressed file, whatever keeps the array.

docs/codec_format.md describes the configuration beside an array and what a chunk is.
"""

import base64
import binascii
import dataclasses

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, model_file, reader, writer
from emnist_jax.codec.options import Options

NAME = "emnist_jax.ejx"  # of the codec, for numcodecs and zarr
VERSION = 1  # of its configuration
FIELDS = ("version", "max_error", "model", "block_images", "invert")
EMBEDDED = "base64:"  # begins a model that is no name


@dataclasses.dataclass(frozen=True)
class Chunks:
    """How the chunks of an array are compressed.

    Attributes:
      max_error: 1 to 127 if pixels may be off so far, 0 if every pixel comes back.
      model: as for `options.Options`, or the content of a model file; what does not
        ship with the package becomes that content.
      block_images: images a block at most; see `options.Options`.
      invert: for black ink on white paper; see `options.Options`.
    """

    max_error: int = 0
    model: str | bytes | None = dataclasses.field(default=None, repr=False)
    block_images: int | None = None
    invert: bool = False

    def __post_init__(self):
        """Raises `UserError` if a field is wrong."""
        checked = Options(mode=self._mode(), **self._fields()).checked()
        model = checked.model
        if isinstance(model, bytes) or str(model) not in model_file.NAMES:
            _, _, model = model_file.load(model)
        else:
            model = str(model)
        for name in ("max_error", "block_images"):
            object.__setattr__(self, name, getattr(checked, name))
        object.__setattr__(self, "invert", bool(self.invert))
        object.__setattr__(self, "model", model)

    def _mode(self) -> str:
        return "near-lossless" if self.max_error else "lossless"

    def _fields(self) -> dict:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @property
    def promise(self) -> tuple[int, int]:
        """Mode and largest error of a pixel, as in the head of a file."""
        return container.MODES.index(self._mode()), self.max_error

    @classmethod
    def from_json(cls, fields: dict) -> "Chunks":
        """Reads what `to_json` returned, or a part of it.

        Args:
          fields: of an array's metadata, which may be anybody's: no path is followed.

        Raises:
          UserError: a field is wrong or unknown, or of a later version.
        """
        given = dict(fields)
        version = given.pop("version", VERSION)
        if version != VERSION:
            raise UserError(
                f"codec {NAME}: version={version} is unknown; this program reads "
                f"{VERSION}"
            )
        if unknown := given.keys() - set(FIELDS):
            raise UserError(f"codec {NAME}: {', '.join(map(str, unknown))} is unknown")
        return cls(**given | {"model": _model(given.get("model"))})

    def to_json(self) -> dict:
        """The configuration, of plain values."""
        model = self.model
        if isinstance(model, bytes):
            model = EMBEDDED + base64.b64encode(model).decode()
        return {"version": VERSION, **self._fields(), "model": model}

    def encode(self, images: np.ndarray) -> bytes:
        """The chunk of uint8 [n, height, width] or [n, height, width, 1]."""
        options = self._fields() | {"mode": self._mode(), "name": "a chunk"}
        return writer.compress(images, **options)

    def open(self, content, shape: tuple[int, ...] | None = None):
        """The images of a chunk, an array that decodes what it is asked for.

        Args:
          content: of the chunk, a buffer.
          shape: what the array's metadata promise; None is whatever it holds.

        Raises:
          UserError: it is damaged or foreign, or of another shape.
        """
        model = self.model if isinstance(self.model, bytes) else None
        images = reader.CompressedImages(content, "a chunk", model=model)
        if shape not in (None, images.shape):
            raise UserError(f"a chunk holds {images.shape}, its array says {shape}")
        return images


def _model(field) -> str | bytes | None:
    """The model that a configuration names or holds."""
    if field is None or field in model_file.NAMES:
        return field
    try:
        if not field.startswith(EMBEDDED):
            raise ValueError
        return base64.b64decode(field[len(EMBEDDED) :], validate=True)
    except (AttributeError, ValueError, binascii.Error):
        raise UserError(
            f"codec {NAME}: model={str(field)[:40]} is neither one of "
            f"{', '.join(model_file.NAMES)} nor a model file in base64"
        ) from None

"""The trained model in a run folder."""

import functools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.devices import parallel, processes
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.models.decoders import make_decoder
from emnist_jax.models.encoder import LATENT_ACTIVATIONS, Encoder
from emnist_jax.models.registry import DECODERS, IMAGE_SIZE
from emnist_jax.runs.refine import errors, refine
from emnist_jax.storage import checkpoints, files, shipped
from emnist_jax.storage.arrays import (
    SIDES,
    allowed_size,
    check_images,
    check_latents,
)

PARTS = ("encoder", "decoder")


class Run:
    """A trained autoencoder in its folder; each half loads when first used.

    It pickles as its path alone. JAX computes in no process that was forked off one
    that had computed: for several processes at once take
    `multiprocessing.get_context("spawn")`, or joblib's default `loky`.
    """

    def __init__(self, path: str | os.PathLike):
        """Names the folder `path`; nothing is read yet."""
        self.path = pathlib.Path(path).absolute()  # valid wherever we change to

    def __reduce__(self) -> tuple:
        """Pickles as the path, whatever is loaded by then."""
        return type(self), (self.path,)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the run, by the names of `Config`."""
        return read_config(self.path)["config"]

    @property
    def parts(self) -> list[str]:
        """Which of 'encoder' and 'decoder' lie in the folder, which is listed anew."""
        return [part for part in PARTS if part in os.listdir(self.path)]

    def about(self, part: str) -> dict[str, Any]:
        """What the checkpoint of a part says of it; raises as `checkpoints.verify`."""
        return checkpoints.verify(self.path / part)

    @functools.cached_property
    def encoder(self) -> tuple[Encoder, Any]:
        """The encoder and its parameters."""
        processes.check_fork()
        path = self.path / "encoder"
        params, about = checkpoints.load(path)
        activation = _field(path, about, "latent_activation", LATENT_ACTIVATIONS)
        size = _image_size(path, about)
        encoder = Encoder(_latent_dim(path, about), activation, image_size=size)
        images = jax.ShapeDtypeStruct((1, *size, 1), np.float32)
        return encoder, _fit(encoder, images, params, path)

    @functools.cached_property
    def decoder(self) -> tuple[Any, Any]:
        """The decoder and its parameters."""
        processes.check_fork()
        path = self.path / "decoder"
        params, about = checkpoints.load(path)
        name = _field(path, about, "decoder", DECODERS)
        decoder = make_decoder(name, image_size=_image_size(path, about))
        latents = jax.ShapeDtypeStruct((1, _latent_dim(path, about)), np.float32)
        return decoder, _fit(decoder, latents, params, path)

    @property
    def latent_dim(self) -> int:
        """Length of a latent vector, from the encoder."""
        return self.encoder[0].latent_dim

    @property
    def decoder_latent_dim(self) -> int:
        """Length of a latent vector, from the decoder."""
        return self.decoder[1]["dense"]["kernel"].shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, from the encoder."""
        return self.encoder[0].image_size

    @property
    def decoder_image_size(self) -> tuple[int, int]:
        """Height and width of the images, from the decoder."""
        return self.decoder[0].image_size

    def encode(
        self,
        images: np.ndarray,
        progress: str | None = None,
    ) -> np.ndarray:
        """Latents of images.

        Args:
          images: `[N, H, W, 1]` or `[N, H, W]`, uint8, or floats in [0, 1].
          progress: name of a progress bar, None for none.

        Returns:
          float32 `[N, latent_dim]`.

        Raises:
          UserError: shape, type or range of the images is wrong, or this process was
            forked off one that had computed (see `Run`).
        """
        images = check_images(images, size=self.image_size)
        if not len(images):
            return np.zeros((0, self.latent_dim), np.float32)
        encoder, params = self.encoder
        latents = parallel.map_rows(_encode(encoder), params, images, progress)
        return _finite(latents, "images")

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Reconstructions from latents.

        Args:
          latents: `[N, latent_dim]`, floats.

        Returns:
          float32 `[N, H, W, 1]` in [0, 1].

        Raises:
          UserError: shape or type of the latents is wrong, a value is not finite or so
            large that pixels would not be; or a fork, as for `encode`.
        """
        latents = check_latents(latents, self.decoder_latent_dim)
        if not len(latents):
            return np.zeros((0, *self.decoder_image_size, 1), np.float32)
        decoder, params = self.decoder
        images = parallel.map_rows(_decode(decoder), params, latents)
        return _finite(images, "latents")

    def encode_batches(
        self, batches: Iterable[np.ndarray], name: str = "images"
    ) -> Iterator[np.ndarray]:
        """`encode` for a stream of checked batches of images; errors name `name`."""
        encoder, params = self.encoder
        outputs = parallel.map_batches(_encode(encoder), params, batches)
        return _all_finite(outputs, name)

    def decode_batches(
        self, batches: Iterable[np.ndarray], name: str = "latents"
    ) -> Iterator[np.ndarray]:
        """`decode` for a stream of checked batches of latents; errors name `name`."""
        decoder, params = self.decoder
        outputs = parallel.map_batches(_decode(decoder), params, batches)
        return _all_finite(outputs, name)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Encodes and decodes `[N, H, W, 1]`; see `encode` and `decode`."""
        return self.decode(self.encode(images))

    def errors(self, *given: Any) -> tuple[np.ndarray, np.ndarray]:
        """Squared errors and their gradients: `refine.errors` with this decoder."""
        return errors(self.decoder, *given)

    def refine(self, *given: Any) -> np.ndarray:
        """Latents that decode more closely: `refine.refine` with this decoder."""
        return refine(self.decoder, *given)


def load_run(path: str | os.PathLike, *, flag: str = "path") -> Run:
    """The trained model in a run folder.

    Args:
      path: the folder; `pretrained/NAME` are weights that come with the package.
      flag: what the user calls `path`, for the error.

    Example:
      latents = emnist_jax.load_run('runs/glyphs-model03-best-seed0').encode(images)

    Raises:
      UserError: there is no trained model, or the folder cannot be read.
    """
    run = Run(shipped.folder_of(path, flag))
    try:
        parts = run.parts
    except (FileNotFoundError, NotADirectoryError):
        parts = []
    except OSError as error:
        raise UserError(f"{flag}={path}: cannot be read: {error.strerror}") from error
    if not parts:
        raise UserError(
            f"{flag}={path}: holds no trained model, neither encoder/ nor decoder/; "
            "name the folder of a finished run"
        )
    return run


def load_pretrained(name: str) -> Run:
    """Trained weights that come with the package, as float16.

    Args:
      name: e.g. 'model02'; their model card is `results.json` in the run's `path`.

    Raises:
      UserError: there are none of that name.
    """
    return load_run(f"pretrained/{name}", flag="name")


def read_config(path: pathlib.Path) -> dict[str, dict]:
    """The run's settings ('config') and the facts about its data ('data').

    Raises:
      UserError: `config.json` is missing, damaged or cannot be read.
    """
    try:
        content = files.read_json(path / "config.json")
        for field in ("config", "data"):
            if not isinstance(content.get(field), dict):
                raise UserError(f"{path / 'config.json'}: {field!r} is no JSON object")
        return content
    except UserError as error:
        raise UserError(
            f"{error}; nobody knows the settings of this run: restore that file, or "
            "delete the folder and train again"
        ) from error


@functools.cache  # one compiled program an architecture
def _encode(encoder: Encoder):
    return lambda params, images: encoder.apply(
        {"params": params}, to_unit_range(images)
    )


@functools.cache
def _decode(decoder: Any):
    return lambda params, latents: decoder.apply({"params": params}, latents)


def _all_finite(batches: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    row = 0
    for batch in batches:
        yield _finite(batch, name, row)
        row += len(batch)


def _finite(outputs: np.ndarray, name: str, first_row: int = 0) -> np.ndarray:
    """The outputs `[N, ...]`, or an error that names the first row which overflows."""
    bad = ~np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))
    if bad.any():
        raise UserError(
            f"{name}: row {first_row + int(bad.argmax())} gives values that are not "
            "finite in float32; smaller ones would do"
        )
    return outputs


def _field(path: pathlib.Path, about: dict, name: str, known: Any) -> str:
    if about.get(name) not in list(known):
        raise UserError(
            f"{path}: {name} {about.get(name)!r}, expected one of {', '.join(known)}"
        )
    return about[name]


def _latent_dim(path: pathlib.Path, about: dict) -> int:
    value = about.get("latent_dim")
    if not isinstance(value, int) or not 1 <= value <= 4096:
        raise UserError(f"{path}: latent_dim {value!r}, expected 1 to 4096")
    return value


def _image_size(path: pathlib.Path, about: dict) -> tuple[int, int]:
    value = about.get("image_size", IMAGE_SIZE)  # earlier versions knew no other
    if not allowed_size(value):
        raise UserError(
            f"{path}: image_size {value!r}, expected two even numbers from {SIDES[0]} "
            f"to {SIDES[-1]}"
        )
    return tuple(value)


def _fit(module: Any, inputs: Any, params: Any, path: pathlib.Path) -> Any:
    template = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    params = checkpoints.restore_like(template, params, path)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), params, template)

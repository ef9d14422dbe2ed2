"""Run folders: what lies where, who may write, and the trained model in them.

config.json            every setting in force and where the data came from
metrics.jsonl          the training log, a JSON object a line
results.json           see `results.py`
checkpoints/step-*     train state: the latest two and the best
encoder/ decoder/      parameters of each half, Orbax, loadable alone
latents/               {train,test}.npy, labels and source rows beside them
figures/               drawn by `plots.py` from the files above and figures/*.npz
"""

import contextlib
import fcntl
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.config import shaping_differences
from emnist_jax.devices import parallel, processes
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.models.decoders import make_decoder
from emnist_jax.models.encoder import LATENT_ACTIVATIONS, Encoder
from emnist_jax.models.registry import DECODERS
from emnist_jax.storage import checkpoints, files, paths
from emnist_jax.storage.arrays import check_images, check_latents


class Run:
    """A trained autoencoder in its folder; each half loads when first used."""

    def __init__(self, path: str | os.PathLike):
        """Names the folder `path`; nothing is read yet."""
        self.path = pathlib.Path(path)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the run, by the names of `Config`."""
        return _read_config(self.path)["config"]

    @functools.cached_property
    def encoder(self) -> tuple[Encoder, Any]:
        """The encoder and its parameters."""
        path = self.path / "encoder"
        params, about = checkpoints.load(path)
        activation = _field(path, about, "latent_activation", LATENT_ACTIVATIONS)
        encoder = Encoder(_latent_dim(path, about), activation)
        images = jax.ShapeDtypeStruct((1, 28, 28, 1), np.float32)
        return encoder, _fit(encoder, images, params, path)

    @functools.cached_property
    def decoder(self) -> tuple[Any, Any]:
        """The decoder and its parameters."""
        path = self.path / "decoder"
        params, about = checkpoints.load(path)
        decoder = make_decoder(_field(path, about, "decoder", DECODERS))
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

    def encode(
        self,
        images: np.ndarray,
        progress: str | None = None,
    ) -> np.ndarray:
        """Latents of images.

        Args:
          images: `[N, 28, 28, 1]` or `[N, 28, 28]`, uint8, or floats in [0, 1].
          progress: name of a progress bar, None for none.

        Returns:
          float32 `[N, latent_dim]`.

        Raises:
          UserError: shape, type or range of the images is wrong.
        """
        images = check_images(images)
        if not len(images):
            return np.zeros((0, self.latent_dim), np.float32)
        encoder, params = self.encoder
        return parallel.map_rows(_encode(encoder), params, images, progress)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Reconstructions from latents.

        Args:
          latents: `[N, latent_dim]`, floats.

        Returns:
          float32 `[N, 28, 28, 1]` in [0, 1].

        Raises:
          UserError: shape or type of the latents is wrong, or a value not finite.
        """
        latents = check_latents(latents, self.decoder_latent_dim)
        if not len(latents):
            return np.zeros((0, 28, 28, 1), np.float32)
        decoder, params = self.decoder
        return parallel.map_rows(_decode(decoder), params, latents)

    def encode_batches(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """`encode` for a stream of checked batches of images."""
        encoder, params = self.encoder
        return parallel.map_batches(_encode(encoder), params, batches)

    def decode_batches(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """`decode` for a stream of checked batches of latents."""
        decoder, params = self.decoder
        return parallel.map_batches(_decode(decoder), params, batches)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Encodes and decodes `[N, 28, 28, 1]`; see `encode` and `decode`."""
        return self.decode(self.encode(images))


def load_run(path: str | os.PathLike) -> Run:
    """The trained model in a run folder.

    Args:
      path: the folder.

    Example:
      latents = emnist_jax.load_run('runs/glyphs-model03-best-seed0').encode(images)

    Raises:
      UserError: there is no trained model.
    """
    run = Run(path)
    if not any((run.path / part / "manifest.json").exists() for part in _PARTS):
        raise UserError(
            f"--run={path}: holds no trained model, neither encoder/ nor decoder/; "
            "name the folder of a finished run"
        )
    return run


def save_model(run: Run, params: Any, architecture: dict[str, Any]) -> None:
    """Writes the encoder and the decoder, each a checkpoint that loads alone.

    Args:
      run: the run to write to.
      params: {'encoder': ..., 'decoder': ...}.
      architecture: decoder, latent_dim and latent_activation.
    """
    for part in _PARTS:
        folder = paths.inside(run.path, part)
        about = {"part": part, **architecture}
        checkpoints.save(folder, params[part], about)


@contextlib.contextmanager
def open_for_training(
    path: pathlib.Path, settings: dict[str, Any], data_source: dict[str, Any]
) -> Iterator[Run]:
    """The run's folder, new or with the same settings, locked against other processes.

    Args:
      path: the folder.
      settings: the `Config` in force, as a dict.
      data_source: facts about the data that a resumed run must share.

    Raises:
      UserError: the folder cannot be made, belongs to other settings or is in use.
    """
    run = Run(path)
    ours = json.loads(json.dumps({"config": settings, "data": data_source}))
    if not processes.is_writer():
        yield run
        return
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in run.path.iterdir() if path.name[0] != "."]
        if names and "config.json" not in names:
            raise UserError(
                f"{run.path} has no config.json but holds {min(names)}; choose "
                "another --run_name"
            )
        for name in WRITTEN:
            paths.inside(run.path, name)
        lock = open(run.path / ".lock", "a", opener=paths.no_link)
    except OSError as error:
        raise UserError(
            f"--workdir={path.parent}: cannot write {error.filename}: "
            f"{error.strerror}; name a folder that can be written"
        ) from error
    with lock:
        try:  # the system frees the lock of a process that dies
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{run.path} is in use by another process; wait for it or choose "
                "another --run_name"
            ) from error
        if (run.path / "config.json").exists():
            _check_same(run.path, ours, _read_config(run.path))
        else:
            files.write_json(run.path / "config.json", ours)
        files.remove_leftovers(run.path)
        yield run


_PARTS = ("encoder", "decoder")
WRITTEN = (
    *(".lock", "config.json", "metrics.jsonl", "results.json", *_PARTS),
    *("checkpoints", "latents", "figures", "tensorboard", "profile"),
)


@functools.cache  # one compiled program an architecture
def _encode(encoder: Encoder):
    return lambda params, images: encoder.apply(
        {"params": params}, to_unit_range(images)
    )


@functools.cache
def _decode(decoder: Any):
    return lambda params, latents: decoder.apply({"params": params}, latents)


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


def _fit(module: Any, inputs: Any, params: Any, path: pathlib.Path) -> Any:
    template = jax.eval_shape(module.init, jax.random.key(0), inputs)["params"]
    return checkpoints.restore_like(template, params, path)


def _read_config(path: pathlib.Path) -> dict[str, dict]:
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


def _check_same(path: pathlib.Path, ours: dict, theirs: dict) -> None:
    differing = shaping_differences(ours["config"], theirs["config"])
    for name in sorted(ours["data"].keys() | theirs["data"].keys()):
        pair = ours["data"].get(name), theirs["data"].get(name)
        if pair[0] != pair[1]:
            differing[f"data {name}"] = pair
    if differing:
        fields = ", ".join(f"{k}={b!r} (now {a!r})" for k, (a, b) in differing.items())
        raise UserError(
            f"{path} belongs to a run with other settings: {fields}; choose another "
            "--run_name, or give those settings"
        )

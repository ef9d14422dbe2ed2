"""The page: one HTML file that holds styles, scripts, weights, models and images."""

import base64
import json
import pathlib
import re
from typing import Any

import numpy as np

from emnist_jax.codec import latent_coding, model_file
from emnist_jax.explore import weights
from emnist_jax.runs import Run

FOLDER = pathlib.Path(__file__).parent / "page"
MODELS = ("default", "near", "near4", "coarse", "fast")
CODEC = "bytes bzip2 container lanes model latents pixels codec".split()
ENGINE = (*(f"codec/{name}" for name in CODEC), "autoencoder", "worker")
APP = (
    "codec/bytes",
    "codec/container",
    "client",
    "drawing",
    "pictures",
    "files",
    "app",
)
EXAMPLES = 60  # images to choose from
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)


def script(names: tuple[str, ...]) -> str:
    """Modules as one script: imports and exports go, as their order needs none."""
    texts = [(FOLDER / f"{name}.mjs").read_text() for name in names]
    return "".join(_IMPORT.sub("", text).replace("\nexport ", "\n") for text in texts)


def chosen(labels: np.ndarray, count: int = EXAMPLES) -> np.ndarray:
    """Rows of at most `count` images: the first of each class, then the second, ..."""
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        (rows,) = np.nonzero(labels == label)
        rank[rows] = np.arange(len(rows))
    return np.lexsort((labels, rank))[:count]


def facts(run: Run, images: np.ndarray, names: list[str], texts: dict) -> dict:
    """What the page knows beside the weights.

    Args:
      run: the trained autoencoder.
      images: uint8 [N, 28, 28, 1], of which the sliders' ranges come.
      names: of the first images, which become the examples.
      texts: by the id of the element they stand in.
    """
    latents = run.encode(images)
    ranges = zip(latents.min(0), latents.max(0), latents.mean(0), strict=True)
    return {
        "texts": texts,
        "models": {name: _base64(model_file.load(name)[2]) for name in MODELS},
        "decoder_digest": latent_coding.decoder_digest(run).hex(),
        "latents": [
            {"low": float(low), "high": float(high), "mean": float(mean)}
            for low, high, mean in ranges
        ],
        "examples": {"names": names, "pixels": _base64(images[: len(names)].tobytes())},
    }


def fill(data: dict[str, Any], content: bytes) -> str:
    """The page with its data and the weights."""
    # In a script element only `<` could end it; JSON may write it as a number.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "style": (FOLDER / "style.css").read_text(),
        "data": text,
        "weights": _base64(content),
        "engine": script(ENGINE),
        "app": script(APP),
    }
    template = (FOLDER / "index.html").read_text()
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], template)


def largest_difference(run: Run, images: np.ndarray) -> float:
    """How far pixels in [0, 1] move because the page rounds the weights."""
    (encoder, encoder_params), (decoder, decoder_params) = run.encoder, run.decoder
    params = {"params": weights.rounded_params(encoder_params)}
    latents = encoder.apply(params, images.astype(np.float32) / 255)
    params = {"params": weights.rounded_params(decoder_params)}
    return float(np.abs(decoder.apply(params, latents) - run.reconstruct(images)).max())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

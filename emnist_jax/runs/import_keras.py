"""Keras weights of the published study as a run that every command takes.

  emnist-jax import --encoder=E.keras --decoder=D.keras --out=RUN
  emnist-jax evaluate --run=RUN --dataset=emnist/balanced

Needs h5py (extra `[keras]`), but neither Keras nor TensorFlow. The files decide
length and activation of the latents, and which of the four decoders it is.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import re
import zipfile
from collections.abc import Sequence
from reprlib import repr as short
from typing import Any

import jax
import numpy as np

from emnist_jax.cli.arguments import Parser
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.config import compose, make_config
from emnist_jax.models.decoders import FEATURES, make_decoder
from emnist_jax.models.encoder import LATENT_ACTIVATIONS, LAYERS, Encoder
from emnist_jax.models.registry import DECODERS
from emnist_jax.models.table import describe, layer_table
from emnist_jax.runs import Run, save_model
from emnist_jax.storage import files, results, zipped

try:
    import h5py
except ModuleNotFoundError:
    h5py = None


def import_keras(
    encoder: str | os.PathLike, decoder: str | os.PathLike, out: str | os.PathLike
) -> Run:
    """Writes a run folder from two `.keras` files; it appears when it is complete.

    Args:
      encoder: the encoder's file.
      decoder: the decoder's file.
      out: the run's folder, which must not exist.

    Returns:
      The run. Its config is that of the preset 'published', without a data set.

    Raises:
      UserError: a file is not of this architecture, damaged or unreadable, the
        halves do not fit each other, or `out` exists.
    """
    encoder_params, settings, encoder_origin = _read(encoder, "encoder")
    decoder_params, found, decoder_origin = _read(decoder, "decoder")
    gives, takes = settings["latent_dim"], found["latent_dim"]
    if gives != takes:
        raise UserError(
            f"--decoder={decoder}: takes {takes} latents, but --encoder={encoder} "
            f"gives {gives}; name two halves of one model"
        )
    config = make_config(preset="published", **(settings | found))
    origin = {"format": "keras", "encoder": encoder_origin, "decoder": decoder_origin}
    run = Run(out)
    if os.path.lexists(out):
        raise UserError(f"--out={out}: exists already; name a new folder")
    with files.write_folder(run.path) as folder:
        folder.mkdir()
        params = {"encoder": encoder_params, "decoder": decoder_params}
        save_model(Run(folder), params, compose.architecture(config))
        about = {"config": dataclasses.asdict(config), "data": {}, "origin": origin}
        files.write_json(folder / "config.json", about)
        record = results.record(
            run.path.name,
            "imported",
            origin=origin,
            dataset=None,  # until it is evaluated
            config=dataclasses.asdict(config),
            model=describe(layer_table(compose.autoencoder(config))),
        )
        files.write_json(folder / "results.json", record)
    return run


# A `.keras` file is a zip archive of metadata.json, config.json (the layers) and
# model.weights.h5, written by Keras 2.12 and later and by Keras 3. Nothing in it is
# executed or followed, and no more is unpacked than the architecture can need.

_LARGEST_JSON = 2**20  # bytes; the published ones have 6,000
_FIXED = {  # fields of a layer that has them
    "dtype": "float32",
    "kernel_size": [3, 3],
    "padding": "same",
    "output_padding": None,
    "data_format": "channels_last",
    "dilation_rate": [1, 1],
    "groups": 1,
    "use_bias": True,
}
_VARYING = ("batch_shape", "target_shape", "filters", "units", "strides", "activation")


def _read(path: str | os.PathLike, part: str) -> tuple[dict, dict, dict[str, str]]:
    """Parameters of our module, fields of `Config`, and where they come from."""
    if h5py is None:
        raise UserError("reading .keras files needs: pip install 'emnist-jax[keras]'")
    try:
        with files.open_regular(path) as file:
            archive = zipfile.ZipFile(file)

            def read(name: str, most: int) -> bytes:
                return archive.read(zipped.member(archive, name, most))

            metadata = json.loads(read("metadata.json", _LARGEST_JSON))
            model = json.loads(read("config.json", _LARGEST_JSON))
            settings, shapes = _match(model["config"], part)
            # An optimizer's state may take twice what the layers do.
            largest = 3 * 4 * sum(map(math.prod, shapes.values())) + 2**20
            weights = read("model.weights.h5", largest)
            file.seek(0)
            origin = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        for field in ("keras_version", "date_saved"):
            origin[field] = str(metadata[field])[:40]
        with h5py.File(io.BytesIO(weights), "r") as content:
            return _read_weights(content, shapes), settings, origin
    except UserError as error:
        raise UserError(f"--{part}={path}: {error}") from error
    except Exception as error:  # a damaged file can raise nearly anything
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        reason = getattr(error, "strerror", None)  # it cannot be read at all
        reason = reason or f"is damaged or something else ({text})"
        raise UserError(f"--{part}={path}: {reason}") from error


def _match(model: dict, part: str) -> tuple[dict[str, Any], dict[str, tuple]]:
    """Checks every layer; returns fields of `Config` and the shapes of our kernels."""
    nodes = [*(x["inbound_nodes"] for x in model["layers"]), model["output_layers"]]
    # Keras 2 and 3 list calls differently, but every tensor as layer, call, output.
    inputs = [re.findall(r'\["(.*?)", (\d+), (\d+)', json.dumps(x)) for x in nodes]
    if inputs != [[], *([(x["name"], "0", "0")] for x in model["layers"])]:
        raise UserError("the layers are not a chain, each fed by the last")
    found = [_row(layer) for layer in model["layers"]]
    if part == "encoder":
        dim, field, choices = found[-1][1], "latent_activation", LATENT_ACTIVATIONS
    else:
        dim, field, choices = found[0][1][-1], "decoder", DECODERS
    if type(dim) is not int or not 1 <= dim <= 4096:
        raise UserError(f"{short(dim)} latents, expected 1 to 4096")
    fits = [choice for choice in choices if _rows(part, dim, choice) == found]
    if not fits:
        pairs = itertools.zip_longest(found, _rows(part, dim, [*choices][0]))
        i, is_, wanted = next((i, *p) for i, p in enumerate(pairs) if p[0] != p[1])
        raise UserError(f"layer {i} of the {part} is {short(is_)}, expected {wanted}")
    module = Encoder(dim) if part == "encoder" else make_decoder(fits[0])
    images = np.zeros([1, *found[0][1][1:]])
    template = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    shapes = {name: leaf["kernel"].shape for name, leaf in template.items()}
    return {"latent_dim": dim, field: fits[0]}, shapes


def _row(layer: dict) -> tuple:
    """Keras' class and what varies from layer to layer; checks what does not."""
    config, kind = dict(layer["config"]), layer["class_name"]
    if "batch_input_shape" in config:  # Keras 2
        config["batch_shape"] = config["batch_input_shape"]
    if isinstance(config["dtype"], dict):  # a policy
        config["dtype"] = config["dtype"]["config"]["name"]
    for field, wanted in _FIXED.items():
        if (found := config.get(field, wanted)) != wanted:
            place = f"{field} of {short(layer['name'])}"
            raise UserError(f"{place} is {short(found)}, expected {wanted!r}")
    if layer["module"] != "keras.layers":  # somebody's own
        kind = f"{layer['module']}.{kind}"
    return kind, *(config[field] for field in _VARYING if field in config)


def _rows(part: str, dim: int, choice: str) -> list[tuple]:
    """What `_row` returns of each layer of an encoder or a decoder."""
    if part == "encoder":
        return [
            ("InputLayer", [None, 28, 28, 1]),
            *(("Conv2D", features, [s, s], "relu") for features, s in LAYERS),
            ("Flatten",),
            ("Dense", dim, choice),
        ]
    upsampling = make_decoder(choice).upsampling_layer
    strides = [1 + (number == upsampling) for number in range(1, 5)]
    up = "Conv2DTranspose"
    return [
        ("InputLayer", [None, dim]),
        ("Dense", 14 * 14 * 64, "relu"),
        ("Reshape", [14, 14, 64]),
        *((up, f, [s, s], "relu") for f, s in zip(FEATURES, strides, strict=True)),
        (up, 1, [1, 1], "sigmoid"),
    ]


def _read_weights(file: Any, shapes: dict[str, tuple]) -> dict:
    """Our parameter tree."""
    nodes, params = {}, {}
    file.visititems(nodes.__setitem__)  # follows no link out of the file
    for name, shape in shapes.items():
        # Keras names layers by class and numbers them from the second on.
        group = name.replace("output", "conv_transpose5").replace("conv", "conv2d")
        group = re.sub(r"\d$", lambda i: f"_{int(i[0]) - 1}", group).removesuffix("_0")
        group = group.replace("latent", "dense")
        up = "transpose" in group
        stored = (3, 3, *shape[:1:-1]) if up else shape
        kernel = _read_array(nodes, f"layers/{group}/vars/0", stored)
        if up:  # Keras' kernel scatters an input, [3, 3, out, in]; ours gathers
            kernel = np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))
        bias = _read_array(nodes, f"layers/{group}/vars/1", shape[-1:])
        params[name] = {"kernel": kernel, "bias": bias}
    return params


def _read_array(nodes: dict[str, Any], path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array that lies in the file itself, whole and finite."""
    node = nodes.get(path)
    if not isinstance(node, h5py.Dataset):
        raise UserError(f"model.weights.h5 has no array {path}")
    if node.shape != shape or node.dtype != np.float32:
        found = f"{node.dtype} {node.shape}"
        raise UserError(f"{path} is {found}, expected float32 {shape}")
    # Keras stores plain blocks: no other file, no filter, nothing left to a default.
    if node.id.get_offset() is None or node.id.get_storage_size() != node.nbytes:
        raise UserError(f"{path} is not one block of {node.nbytes} bytes")
    array = node[()]
    if not np.isfinite(array).all():
        raise UserError(f"{path} has a value that is not finite")
    return array


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = Parser(__doc__)
    parser.add_argument("--encoder", required=True, help="the encoder's .keras file")
    parser.add_argument("--decoder", required=True, help="the decoder's .keras file")
    parser.add_argument("--out", required=True, help="the run's folder, a new one")
    flags = parser.parse_args(argv)
    run = import_keras(flags.encoder, flags.decoder, flags.out)
    about, record = run.config, results.load_results(run.path)
    print(
        f"{run.path}: {about['decoder']}, {about['latent_dim']} "
        f"{about['latent_activation']} latents, "
        f"{record['model']['parameters']['total']:,} parameters\n"
        f"measure it: emnist-jax evaluate --run={run.path} --dataset=emnist/balanced"
    )


if __name__ == "__main__":
    run_command(main)

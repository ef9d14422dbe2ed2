"""`.keras` files of the published architecture, read without Keras.

Such a file is a zip archive of metadata.json, config.json (the layers) and
model.weights.h5, written by Keras 2.12 and later and by Keras 3. Every layer is
checked against the architecture; nothing in the file is executed or followed.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator
from reprlib import repr as short
from typing import Any

import h5py
import numpy as np

from emnist_jax.errors import UserError
from emnist_jax.models.decoders import DECODERS, FEATURES
from emnist_jax.models.encoder import LATENT_ACTIVATIONS, LAYERS


@dataclasses.dataclass(frozen=True)
class Half:
    """An encoder or a decoder.

    Attributes:
      params: float32 arrays by layer, then 'kernel' or 'bias', as our modules want.
      settings: fields of `Config` that the file decides.
      origin: SHA-256 of the file, version of Keras, and when it was saved.
    """

    params: dict[str, dict[str, np.ndarray]]
    settings: dict[str, Any]
    origin: dict[str, str]


def _dense(name: str, units: list[int], activations: list[str]) -> tuple:
    return "Dense", name, dict(units=units, activation=activations, use_bias=[True])


def _convolution(kind: str, name: str, features: int, strides: list[int]) -> tuple:
    settings = {
        "filters": [features],
        "kernel_size": [[3, 3]],
        "strides": [[stride, stride] for stride in strides],
        "padding": ["same"],
        "output_padding": [None],
        "data_format": ["channels_last"],
        "dilation_rate": [[1, 1]],
        "groups": [1],
        "activation": ["sigmoid" if name == "output" else "relu"],
        "use_bias": [True],
    }
    return kind, name, settings


_LATENT_DIMS = range(1, 4097)
_GRID = (14, 14, 64)  # between the convolutions and the dense layers
_GRID_SIZE = 14 * 14 * 64
_UP = "Conv2DTranspose"

# Of each layer: Keras' class, name in our parameter tree (empty without parameters),
# and the values that each field of its config may have.
_LAYERS: dict[str, tuple[tuple[str, str, dict[str, list]], ...]] = {
    "encoder": (
        ("InputLayer", "", {"batch_shape": [[None, 28, 28, 1]]}),
        *(
            _convolution("Conv2D", f"conv{i}", features, [stride])
            for i, (features, stride) in enumerate(LAYERS, start=1)
        ),
        ("Flatten", "", {"data_format": ["channels_last"]}),
        _dense("latent", list(_LATENT_DIMS), list(LATENT_ACTIVATIONS)),
    ),
    "decoder": (
        ("InputLayer", "", {"batch_shape": [[None, dim] for dim in _LATENT_DIMS]}),
        _dense("dense", [_GRID_SIZE], ["relu"]),
        ("Reshape", "", {"target_shape": [list(_GRID)]}),
        *(
            _convolution(_UP, f"conv_transpose{i}", features, [1, 2])
            for i, features in enumerate(FEATURES, start=1)
        ),
        _convolution(_UP, "output", 1, [1]),
    ),
}
_KINDS = {part: [kind for kind, _, _ in layers] for part, layers in _LAYERS.items()}
_WEIGHTS = "model.weights.h5"
_LARGEST_JSON = 2**20  # bytes; the published ones have 6,000


class _Unfit(Exception):
    """The file is not what it should be; the message does not name it."""


def read(path: str | os.PathLike, part: str) -> Half:
    """Reads an encoder or a decoder.

    However the file was made, no more is unpacked than the architecture can need.

    Args:
      path: the `.keras` file.
      part: 'encoder' or 'decoder', which is also its flag.

    Raises:
      UserError: the file is of another architecture, damaged or unreadable.
    """
    try:
        if not pathlib.Path(path).is_file():
            raise _Unfit("no such file, expected a .keras file")
        with open(path, "rb") as file:
            with _reading("the zip archive"):
                archive = zipfile.ZipFile(file)
            metadata = _read_json(archive, "metadata.json")
            config = _read_json(archive, "config.json")
            with _reading("config.json"):
                configs = _check_architecture(config, part)
            shapes = _shapes(configs, part)
            floats = sum(math.prod(kernel) + bias for kernel, bias in shapes.values())
            # An optimizer's state may take twice what the layers do.
            weights = _read_member(archive, _WEIGHTS, 3 * 4 * floats + 2**20)
            file.seek(0)
            origin = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        for field in ("keras_version", "date_saved"):
            if not isinstance(metadata.get(field), str):
                raise _Unfit(f"metadata.json lacks {field}")
            origin[field] = metadata[field][:40]
        with _reading(_WEIGHTS), h5py.File(io.BytesIO(weights), "r") as content:
            params = _read_weights(content, part, shapes)
    except (_Unfit, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--{part}={path}: {reason}") from error
    return Half(params, _settings(configs, part), origin)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except _Unfit:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise _Unfit(f"{name} is damaged or something else: {error!r}") from error


def _read_member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """A member of the archive, its checksum checked, of at most `largest` bytes."""
    if name not in archive.namelist():
        raise _Unfit(f"has no member {name}, as every .keras file has")
    size = archive.getinfo(name).file_size
    if size > largest:
        raise _Unfit(f"{name} has {size} bytes, expected at most {largest}")
    with _reading(name), archive.open(name) as file:
        return file.read()  # never more than the size said


def _read_json(archive: zipfile.ZipFile, name: str) -> dict:
    content = _read_member(archive, name, _LARGEST_JSON)
    with _reading(name):
        return dict(json.loads(content))


def _check_architecture(model: dict, part: str) -> list[dict]:
    """Checks every layer; returns their configs in order."""
    if (found := model["class_name"]) != "Functional":
        raise _Unfit(f"config.json: {short(found)} model, expected 'Functional'")
    layers = list(model["config"]["layers"])
    kinds = [_kind(layer) for layer in layers]
    for other in _LAYERS.keys() - {part}:
        if kinds == _KINDS[other]:
            raise _Unfit(
                f"holds the {other}, expected the {part}; are --encoder and --decoder "
                "swapped?"
            )
    pairs = itertools.zip_longest(kinds, _KINDS[part], fillvalue="missing")
    for number, (found, wanted) in enumerate(pairs):
        if found != wanted:
            raise _Unfit(
                f"config.json: layer {number} is {short(found)}, expected {wanted!r}"
            )
    _check_chain(model["config"], layers)
    configs = [_normalised(layer["config"]) for layer in layers]
    for config, (_, _, settings) in zip(configs, _LAYERS[part], strict=True):
        for field, allowed in {**settings, "dtype": ["float32"]}.items():
            if config.get(field) not in allowed:
                wanted = f"one of {short(allowed)}" if allowed[1:] else repr(allowed[0])
                raise _Unfit(
                    f"config.json: {field} of {short(config['name'])} is "
                    f"{short(config.get(field))}, expected {wanted}"
                )
    strides = [config["strides"][0] for config in configs if "strides" in config]
    if sum(strides) != len(strides) + 1:
        raise _Unfit(f"config.json: strides are {strides}, expected one 2 and else 1")
    return configs


def _kind(layer: dict) -> str:
    """Keras' own class by its name, a foreign one with its module before it."""
    name, module = layer["class_name"], layer["module"]
    return name if module == "keras.layers" else f"{module}.{name}"


def _normalised(config: dict) -> dict:
    """A layer's config as Keras 3 writes it, with the values that it leaves out."""
    config = {"groups": 1, **config}
    if "batch_input_shape" in config:  # Keras 2
        config["batch_shape"] = config["batch_input_shape"]
    if isinstance(config["dtype"], dict):  # a policy
        config["dtype"] = config["dtype"]["config"]["name"]
    return config


def _check_chain(model: dict, layers: list[dict]) -> None:
    """Checks that each layer is fed by the one before it and by nothing else."""
    fits = layers[0]["inbound_nodes"] == []
    for end, layer in (("input_layers", layers[0]), ("output_layers", layers[-1])):
        node = [layer["name"], 0, 0]
        fits &= model[end] in (node, [node])  # Keras 3, Keras 2
    for before, layer in itertools.pairwise(layers):
        calls = [_call(node) for node in layer["inbound_nodes"]]
        fits &= calls == [[[before["name"], 0, 0, {}]]]
    if not fits:
        raise _Unfit("config.json: the layers are not a chain, each fed by the last")


def _call(node: Any) -> Any:
    """A call of a layer as Keras 2 writes it: its inputs, each with the options."""
    if isinstance(node, dict):  # Keras 3
        histories = [tensor["config"]["keras_history"] for tensor in node["args"]]
        return [[*history, node["kwargs"]] for history in histories]
    return node


def _settings(configs: list[dict], part: str) -> dict[str, Any]:
    """The fields of `Config` that the file decides."""
    if part == "encoder":
        dim, activation = configs[-1]["units"], configs[-1]["activation"]
        return {"latent_dim": dim, "latent_activation": activation}
    layer = 1 + [config["strides"] for config in configs[3:]].index([2, 2])
    (name,) = (name for name, place in DECODERS.items() if place == layer)
    return {"latent_dim": configs[0]["batch_shape"][1], "decoder": name}


def _shapes(configs: list[dict], part: str) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape of the kernel, as Keras keeps it, and length of the bias of each layer."""
    channels, shapes = configs[0]["batch_shape"][-1], {}
    for config, (kind, name, _) in zip(configs, _LAYERS[part], strict=True):
        if kind == "Flatten":
            channels = _GRID_SIZE
        elif kind == "Reshape":
            channels = _GRID[-1]
        elif name:
            features = config["units" if kind == "Dense" else "filters"]
            pair = (features, channels) if kind == _UP else (channels, features)
            shapes[name] = pair if kind == "Dense" else (3, 3, *pair), features
            channels = features
    return shapes


def _read_weights(file: h5py.File, part: str, shapes: dict) -> dict:
    """Our parameter tree."""
    params, groups = {}, []
    for kind, name, _ in _LAYERS[part]:
        # Keras names groups by class, numbered from the second of a class on.
        number = _KINDS[part][: len(groups)].count(kind)
        group = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind).lower()
        groups.append(f"{group}_{number}" if number else group)
        if not name:
            continue
        shape, features = shapes[name]
        kernel = _read_array(file, f"layers/{groups[-1]}/vars/0", shape)
        bias = _read_array(file, f"layers/{groups[-1]}/vars/1", (features,))
        if kind == _UP:
            # Keras' kernel scatters an input, [3, 3, out, in]; ours gathers.
            kernel = np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))
        params[name] = {"kernel": kernel, "bias": bias}
    if unknown := sorted(file["layers"].keys() - set(groups)):
        raise _Unfit(f"{_WEIGHTS} has layers/{unknown[0]}, which config.json lacks")
    return params


def _read_array(file: h5py.File, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array that lies in the file itself, whole and finite."""
    node = file
    for name in path.split("/"):
        link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            found = "lacks it" if link is None else f"has a {type(link).__name__}"
            raise _Unfit(f"{_WEIGHTS}: expected an array {path}, but the file {found}")
        node = node[name]
    if not isinstance(node, h5py.Dataset):
        raise _Unfit(f"{_WEIGHTS}: {path} is a group, expected an array")
    if node.shape != shape or node.dtype != np.float32:
        raise _Unfit(
            f"{_WEIGHTS}: {path} is {node.dtype} {node.shape}, expected float32 {shape}"
        )
    # Keras stores plain blocks: no other file, no filter, nothing left to a default.
    plain = node.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    whole = node.id.get_storage_size() == node.nbytes
    if not (plain and whole) or node.external is not None:
        raise _Unfit(f"{_WEIGHTS}: {path} is not one block of {node.nbytes} bytes")
    array = node[()]
    if not np.isfinite(array).all():
        raise _Unfit(f"{_WEIGHTS}: {path} has a value that is not finite")
    return array

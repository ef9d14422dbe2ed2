"""Content of `.keras` files, made to be changed, and commands on them."""

import io
import json
import sys
import zipfile

import h5py
import numpy as np
import pytest

from emnist_jax.errors import run_command

LATENT_DIM = 3
JSON = ("metadata.json", "config.json")
WEIGHTS = "model.weights.h5"


class KerasFile:
    """Content of a `.keras` file, to be changed and then written."""

    def __init__(self, part, seed=0, up=3, keras=2, activation="relu", dim=LATENT_DIM):
        self.metadata = {"keras_version": f"{keras}.1.0", "date_saved": "2024-01-02"}
        self.layers, self.weights = [], {}
        self.generator = np.random.default_rng(seed)
        self.keras = keras
        if part == "encoder":
            self.add("InputLayer", "input_layer", shape=[28, 28, 1])
            channels = 1
            for i, (filters, stride) in enumerate([(32, 1), (64, 2), (64, 1), (64, 1)]):
                name = f"conv2d_{i}" if i else "conv2d"
                self.convolve("Conv2D", name, channels, filters, stride)
                channels = filters
            self.add("Flatten", "flatten", data_format="channels_last")
            self.dense(12544, dim, activation)
        else:
            self.add("InputLayer", "input_layer", shape=[dim])
            self.dense(dim, 12544, "relu")
            self.add("Reshape", "reshape", target_shape=[14, 14, 64])
            channels = 64
            for i, filters in enumerate((64, 64, 64, 32, 1)):
                name = f"conv2d_transpose_{i}" if i else "conv2d_transpose"
                stride = 2 if i + 1 == up else 1
                self.convolve("Conv2DTranspose", name, channels, filters, stride)
                channels = filters
            self.config(-1)["activation"] = "sigmoid"
        names = [layer["name"] for layer in self.layers]
        ends = [[names[0], 0, 0], [names[-1], 0, 0]]
        if keras == 2:
            ends = [[end] for end in ends]
        body = {
            "layers": self.layers,
            "input_layers": ends[0],
            "output_layers": ends[1],
        }
        self.model = {"class_name": "Functional", "config": body}

    def add(self, kind, group, weights=(), shape=None, **config):
        config |= {"name": f"my_{group}", "dtype": "float32"}
        if shape:
            key = "batch_input_shape" if self.keras == 2 else "batch_shape"
            config[key] = [None, *shape]
        elif self.keras == 3:
            policy = {"name": "float32"}
            config["dtype"] = {"class_name": "DTypePolicy", "config": policy}
        nodes = []
        if self.layers and self.keras == 2:
            nodes = [[[self.layers[-1]["name"], 0, 0, {}]]]
        elif self.layers:
            history = {"keras_history": [self.layers[-1]["name"], 0, 0]}
            nodes = [{"args": [{"config": history}], "kwargs": {}}]
        self.layers.append(
            {
                "module": "keras.layers",
                "class_name": kind,
                "config": config,
                "name": config["name"],
                "inbound_nodes": nodes,
            }
        )
        for i, array in enumerate(weights):
            self.weights[f"layers/{group}/vars/{i}"] = array

    def convolve(self, kind, group, channels, filters, stride):
        pair = (filters, channels) if kind == "Conv2DTranspose" else (channels, filters)
        extra = {"groups": 1} if self.keras == 2 or kind == "Conv2D" else {}
        self.add(
            kind,
            group,
            [self.draw((3, 3, *pair), 9 * channels), self.draw((filters,), 10)],
            filters=filters,
            kernel_size=[3, 3],
            strides=[stride, stride],
            padding="same",
            data_format="channels_last",
            dilation_rate=[1, 1],
            activation="relu",
            use_bias=True,
            **extra,
        )

    def dense(self, inputs, units, activation):
        weights = [self.draw((inputs, units), inputs), self.draw((units,), 10)]
        options = dict(units=units, activation=activation, use_bias=True)
        self.add("Dense", "dense", weights, **options)

    def draw(self, shape, inputs):
        values = self.generator.normal(0, np.sqrt(2 / inputs), shape)
        return values.astype(np.float32)

    def config(self, place):
        return self.layers[place]["config"]

    def members(self):
        file = io.BytesIO()
        with h5py.File(file, "w") as content:
            for layer in self.layers:  # Keras writes groups of empty layers too
                if layer["name"] in ("my_input_layer", "my_flatten", "my_reshape"):
                    content.create_group(f"layers/{layer['name'][3:]}/vars")
            for name, array in self.weights.items():
                if callable(array):
                    array(content, name)
                else:
                    content[name] = array
        texts = (json.dumps(self.metadata), json.dumps(self.model))
        return {**dict(zip(JSON, texts, strict=True)), WEIGHTS: file.getvalue()}

    def write(self, path):
        return write_zip(path, self.members())


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_pair(folder, seed=0):
    """A model01 whose first latent is dead."""
    encoder, decoder = (KerasFile(part, seed) for part in ("encoder", "decoder"))
    encoder.weights["layers/dense/vars/1"][:] = (-1e6, 1e3, 1e3)
    return {
        "encoder": encoder.write(folder / "e.keras"),
        "decoder": decoder.write(folder / "d.keras"),
    }


def command(monkeypatch, capsys, main, **flags):
    """Exit status and output of a command."""
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as exit:
        run_command(main)
    return exit.value.code, *capsys.readouterr()

"""Content of `.keras` files, made to be changed, and what Keras computes from it."""

import io
import json
import zipfile

import h5py
import numpy as np

PARTS, WEIGHTS, DIM = ("encoder", "decoder"), "model.weights.h5", 3
CONVOLUTION = {
    "kernel_size": [3, 3],
    "padding": "same",
    "data_format": "channels_last",
    "dilation_rate": [1, 1],
    "use_bias": True,
}


class KerasFile:
    """Content of a `.keras` file, to be changed and then written."""

    def __init__(self, part, up=3, keras=2, activation="relu", dim=DIM):
        self.metadata = {"keras_version": f"{keras}.1.0", "date_saved": "2024-01-02"}
        self.layers, self.weights, self.keras = [], {}, keras
        self.rng = np.random.default_rng(0)
        channels = 1 if part == "encoder" else 64
        if part == "encoder":
            self.add("InputLayer", "input_layer", batch_shape=[None, 28, 28, 1])
            kind, filters, strides = "Conv2D", (32, 64, 64, 64), (1, 2, 1, 1)
        else:
            self.add("InputLayer", "input_layer", batch_shape=[None, dim])
            self.add_weights("Dense", "dense", (dim, 12544), units=12544)
            self.add("Reshape", "reshape", target_shape=[14, 14, 64])
            kind, filters = "Conv2DTranspose", (64, 64, 64, 32, 1)
            strides = [1 + (number == up) for number in range(1, 6)]
        for i, (count, stride) in enumerate(zip(filters, strides, strict=True)):
            group = kind.lower().replace("dt", "d_t") + (f"_{i}" if i else "")
            pair = (channels, count) if kind == "Conv2D" else (count, channels)
            fields = {**CONVOLUTION, "filters": count, "strides": [stride, stride]}
            self.add_weights(kind, group, (3, 3, *pair), **fields)
            channels = count
        if part == "encoder":
            self.add("Flatten", "flatten", data_format="channels_last")
            self.add_weights("Dense", "dense", (12544, dim), units=dim)
        self[-1]["activation"] = activation if part == "encoder" else "sigmoid"
        end = [self.layers[-1]["name"], 0, 0]
        self.body = {"layers": self.layers, "output_layers": [end]}

    def add(self, kind, group, **config):
        name = f"my_{group}"
        config |= {"name": name, "dtype": "float32"}
        nodes = [self.layers[-1]["name"], 0, 0] if self.layers else []
        if self.keras == 3:
            config["dtype"] = {
                "class_name": "DTypePolicy",
                "config": {"name": "float32"},
            }
            nodes = nodes and [{"args": [{"config": {"keras_history": nodes}}]}]
        else:
            if "batch_shape" in config:
                config["batch_input_shape"] = config.pop("batch_shape")
            nodes = nodes and [[[*nodes, {}]]]
        layer = {"module": "keras.layers", "class_name": kind, "config": config}
        self.layers.append({**layer, "name": name, "inbound_nodes": nodes})

    def add_weights(self, kind, group, shape, **config):
        self.add(kind, group, **{"activation": "relu", "use_bias": True, **config})
        spread = np.sqrt(
            2 / np.prod(shape) * config.get("filters", config.get("units"))
        )
        count = config.get("filters") or config["units"]
        for i, x in enumerate((shape, (count,))):
            values = self.rng.normal(0, spread, x).astype(np.float32)
            self.weights[f"layers/{group}/vars/{i}"] = values

    def __getitem__(self, place):
        return self.layers[place]["config"]

    def members(self):
        file = io.BytesIO()
        with h5py.File(file, "w") as content:
            for name, array in self.weights.items():
                if callable(array):
                    array(content, name)
                else:
                    content[name] = array
        model = {"class_name": "Functional", "config": self.body}
        return {
            "metadata.json": json.dumps(self.metadata),
            "config.json": json.dumps(model),
            WEIGHTS: file.getvalue(),
        }

    def write(self, path):
        return write_zip(path, self.members())


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# What Keras computes, in NumPy and float64: every tap of a kernel on its own.


def conv2d(x, kernel, stride):
    size = x.shape[1] // stride
    missing = (size - 1) * stride + 3 - x.shape[1]  # SAME: the smaller half in front
    pad = (missing // 2, missing - missing // 2)
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    reach = (size - 1) * stride + 1
    taps = np.ndindex(3, 3)
    return sum(
        x[:, a : a + reach : stride, b : b + reach : stride] @ kernel[a, b]
        for a, b in taps
    )


def conv2d_transpose(x, kernel, stride):
    """The gradient of `conv2d` by its input: every input value is scattered."""
    batch, size = x.shape[:2]
    reach = (size - 1) * stride + 1
    y = np.zeros((batch, reach + 2, reach + 2, kernel.shape[2]))
    for a, b in np.ndindex(3, 3):
        y[:, a : a + reach : stride, b : b + reach : stride] += x @ kernel[a, b].T
    front = (3 - stride) // 2
    return y[:, front : front + size * stride, front : front + size * stride]


def compute(file, x):
    arrays = (array.astype(np.float64) for array in file.weights.values())
    for layer in file.layers:
        config, kind = layer["config"], layer["class_name"]
        if kind == "Flatten":
            x = x.reshape(len(x), -1)
        elif kind == "Reshape":
            x = x.reshape(len(x), *config["target_shape"])
        elif kind == "Dense":
            x = x @ next(arrays) + next(arrays)
        elif kind != "InputLayer":
            apply = conv2d if kind == "Conv2D" else conv2d_transpose
            x = apply(x, next(arrays), config["strides"][0]) + next(arrays)
        if config.get("activation") == "relu":
            x = np.maximum(x, 0)
    return 1 / (1 + np.exp(-x)) if config["activation"] == "sigmoid" else x

"""Keras weights: outputs against NumPy by Keras' own definition, and bad files."""

import io
import json
import re
import sys
import zipfile

import h5py
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emnist_jax
from emnist_jax import evaluate, import_keras, keras_files, results
from emnist_jax.errors import UserError, run_command
from emnist_jax.models.decoders import DECODERS

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


# What Keras computes, in NumPy and float64: every tap of a kernel on its own.


def conv2d(x, kernel, bias, stride):
    size = x.shape[1] // stride
    missing = (size - 1) * stride + 3 - x.shape[1]  # SAME: the smaller half in front
    pad = (missing // 2, missing - missing // 2)
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    reach = (size - 1) * stride + 1
    return bias + sum(
        x[:, a : a + reach : stride, b : b + reach : stride] @ kernel[a, b]
        for a in range(3)
        for b in range(3)
    )


def conv2d_transpose(x, kernel, bias, stride):
    """The gradient of `conv2d` by its input: every input value is scattered."""
    batch, size = x.shape[:2]
    reach = (size - 1) * stride + 1
    y = np.zeros((batch, reach + 2, reach + 2, kernel.shape[2]))
    for a in range(3):
        for b in range(3):
            window = y[:, a : a + reach : stride, b : b + reach : stride]
            window += x @ kernel[a, b].T
    front = (3 - stride) // 2
    inside = slice(front, front + size * stride)
    return y[:, inside, inside] + bias


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def compute(file, x):
    arrays = iter(file.weights.values())
    for layer in file.layers:
        config, kind = layer["config"], layer["class_name"]
        if kind == "Flatten":
            x = x.reshape(len(x), -1)
        elif kind == "Reshape":
            x = x.reshape(len(x), *config["target_shape"])
        elif kind != "InputLayer":
            kernel, bias = (next(arrays).astype(np.float64) for _ in range(2))
            if kind == "Dense":
                x = x @ kernel + bias
            else:
                apply = conv2d if kind == "Conv2D" else conv2d_transpose
                x = apply(x, kernel, bias, config["strides"][0])
            x = ACTIVATIONS[config["activation"]](x)
    return x


def in_float64(half, inputs):
    module, params = half
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        return np.asarray(module.apply({"params": params}, inputs))


@pytest.mark.parametrize(
    ("decoder", "keras", "activation"),
    [
        ("model01", 2, "relu"),
        ("model02", 3, "linear"),
        ("model03", 2, "linear"),
        ("model04", 3, "relu"),
    ],
)
def test_outputs_are_those_of_keras(tmp_path, decoder, keras, activation):
    up = DECODERS[decoder]
    files = [KerasFile(p, 1, up, keras, activation) for p in ("encoder", "decoder")]
    paths = [f.write(tmp_path / f"{i}.keras") for i, f in enumerate(files)]
    run = import_keras.import_keras(*paths, tmp_path / "run")
    assert run.decoder[0].upsampling_layer == up
    assert run.config["latent_activation"] == activation

    generator = np.random.default_rng(2)
    images = generator.random((2, 28, 28, 1), np.float32).astype(np.float64)
    latents = compute(files[0], images)
    np.testing.assert_allclose(in_float64(run.encoder, images), latents, rtol=1e-10)
    np.testing.assert_allclose(run.encode(images), latents, rtol=1e-4, atol=1e-5)
    latents = generator.normal(0, 3, (2, LATENT_DIM)).astype(np.float32)
    expected = compute(files[1], latents.astype(np.float64))
    assert expected.std() > 0.02
    found = in_float64(run.decoder, latents.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(run.decode(latents), expected, atol=1e-5)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The two files of a model01; tests must not change them."""
    return write_pair(tmp_path_factory.mktemp("keras"))


def command(monkeypatch, capsys, main, **flags):
    """Exit status and output of a command."""
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as exit:
        run_command(main)
    return exit.value.code, *capsys.readouterr()


def test_imported_run_is_evaluated(pair, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    status, printed, _ = command(
        monkeypatch, capsys, import_keras.main, **pair, out=out
    )
    assert status == 0
    assert "model01, 3 relu latents, 310,020 parameters" in printed
    record = results.load_results(out)
    assert record["status"] == "imported"
    assert record["config"]["preset"] == "published"
    assert re.fullmatch("[0-9a-f]{64}", record["origin"]["encoder"]["sha256"])
    assert record["origin"]["decoder"]["keras_version"] == "2.1.0"
    assert json.loads((out / "config.json").read_text())["origin"] == record["origin"]

    settings = json.loads((out / "config.json").read_text())
    settings["config"]["test_examples"] = 20  # to be quick
    (out / "config.json").write_text(json.dumps(settings))
    flags = dict(run=out, dataset="glyphs")
    status, _, errors = command(monkeypatch, capsys, evaluate.main, **flags)
    assert status == 0, errors
    record = results.load_results(out)
    latents = np.load(out / "latents" / "test.npy")
    assert latents.shape == (20, LATENT_DIM)
    assert (np.ptp(latents, axis=0) > 0).tolist() == [False, True, True]
    assert record["test"]["active_latents"] == 2
    assert 0 < record["test"]["autoencoder"]["mse"] < 1

    # The same import again keeps it, results and all.
    before = snapshot(out)
    assert command(monkeypatch, capsys, import_keras.main, **pair, out=out)[0] == 0
    assert snapshot(out) == before


def snapshot(folder):
    paths = [p for p in folder.rglob("*") if p.is_file()]
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in paths}


def test_nothing_is_overwritten(pair, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    run = import_keras.import_keras(**pair, out=empty)
    before = snapshot(empty)
    (tmp_path / "others").mkdir()
    others = write_pair(tmp_path / "others", seed=1)
    with pytest.raises(UserError, match="--out=.*holds something else"):
        import_keras.import_keras(**others, out=empty)
    assert snapshot(empty) == before
    (tmp_path / "others" / "notes").touch()
    with pytest.raises(UserError, match="--out=.*others: holds something else"):
        import_keras.import_keras(**pair, out=tmp_path / "others")
    with pytest.raises(UserError, match="--out=.*notes: Not a directory"):
        import_keras.import_keras(**pair, out=tmp_path / "others" / "notes")

    manifest = run.path / "encoder" / "manifest.json"
    manifest.write_text("{}")
    with pytest.raises(UserError, match="encoder is damaged"):
        import_keras.import_keras(**pair, out=empty)


def test_halves_must_fit(pair, tmp_path):
    other = KerasFile("decoder", dim=4).write(tmp_path / "d.keras")
    with pytest.raises(UserError, match="takes 4 latents, but .* gives 3"):
        import_keras.import_keras(pair["encoder"], other, tmp_path / "run")


def test_h5py_is_optional(pair, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "emnist_jax.keras_files")
    monkeypatch.delattr(emnist_jax, "keras_files")
    with pytest.raises(UserError, match=r"needs h5py: pip install 'emnist-jax\[keras"):
        import_keras.import_keras(**pair, out=tmp_path / "run")


# Files that are not of this architecture: what is said about which change.

KERNEL = "layers/conv2d_1/vars/0"
SHAPE = (3, 3, 32, 64)
ELSEWHERE = "/nonexistent/data.h5"


def configure(place, **values):
    return lambda file: file.config(place).update(values)


def put(value, dtype=np.float32, shape=SHAPE, name=KERNEL):
    return lambda file: file.weights.update({name: np.full(shape, value, dtype)})


def put_by(write):
    """Has `write(content, name)` put something in the place of a kernel."""
    return lambda file: file.weights.update({KERNEL: write})


def skip_layer(file):
    file.layers[4]["inbound_nodes"] = file.layers[3]["inbound_nodes"]


def use_foreign_class(file):
    file.layers[2]["module"] = "somebody"


def link_layer(file):
    for i in range(2):
        del file.weights[f"layers/conv2d_2/vars/{i}"]
    file.weights["layers/conv2d_2"] = link_outside


def link_outside(content, name):
    content[name] = h5py.ExternalLink(ELSEWHERE, name)


def link_inside(content, name):
    content[name] = h5py.SoftLink("/layers/conv2d/vars/0")


def store_outside(content, name):
    place = [(ELSEWHERE, 0, h5py.h5f.UNLIMITED)]
    content.create_dataset(name, SHAPE, "f4", external=place)


def store_virtually(content, name):
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource(ELSEWHERE, name, SHAPE)
    content.create_virtual_dataset(name, layout)


def compress(content, name):
    content.create_dataset(name, SHAPE, "f4", compression="gzip")


def leave_out(content, name):
    content.create_dataset(name, SHAPE, "f4")


def store_strings(content, name):
    content.create_dataset(name, SHAPE, h5py.string_dtype())


UNFIT = {
    "encoder": {
        "'Sequential' model, expected 'Functional'": lambda f: f.model.update(
            class_name="Sequential"
        ),
        "config.json is damaged or something else": lambda f: f.model.update(config=7),
        "layer 4 is 'Flatten', expected 'Conv2D'": lambda f: f.layers.pop(3),
        "layer 0 is 'missing', expected 'InputLayer'": lambda f: f.layers.clear(),
        "layer 7 is 'Dense', expected 'missing'": lambda f: f.layers.append(
            f.layers[-1]
        ),
        "layer 2 is 'somebody.Conv2D', expected 'Conv2D'": use_foreign_class,
        "layers are not a chain": skip_layer,
        "not a chain, each fed by the last": lambda f: f.model["config"].update(
            output_layers=[["my_flatten", 0, 0]]
        ),
        "batch_shape of 'my_input_layer' is [None, 32, 32, 1], expected": configure(
            0, batch_input_shape=[None, 32, 32, 1]
        ),
        "filters of 'my_conv2d_2' is 65, expected 64": configure(3, filters=65),
        "is [5, 5], expected [3, 3]": configure(1, kernel_size=[5, 5]),
        "is [1, 1], expected [2, 2]": configure(2, strides=[1, 1]),
        "is 'valid', expected 'same'": configure(2, padding="valid"),
        "expected 'channels_last'": configure(2, data_format="channels_first"),
        "is [2, 2], expected [1, 1]": configure(2, dilation_rate=[2, 2]),
        "groups of 'my_conv2d_1' is 2": configure(2, groups=2),
        "is 'elu', expected 'relu'": configure(2, activation="elu"),
        "use_bias of 'my_conv2d_1' is False": configure(2, use_bias=False),
        "is 'mixed_float16', expected 'float32'": configure(
            2, dtype={"config": {"name": "mixed_float16"}}
        ),
        "expected one of ['linear', 'relu']": configure(-1, activation="tanh"),
        "units of 'my_dense' is 0, expected one of [1, 2,": configure(-1, units=0),
        "metadata.json lacks keras_version": lambda f: f.metadata.clear(),
        f"expected an array {KERNEL}, but the file lacks it": lambda f: f.weights.pop(
            KERNEL
        ),
        "layers/conv2d/vars/0, but the file lacks it": lambda f: f.weights.clear(),
        "has layers/conv2d_4, which config.json lacks": put(
            0, name="layers/conv2d_4/vars/0"
        ),
        f"(3, 3, 64, 32), expected float32 {SHAPE}": put(0, shape=(3, 3, 64, 32)),
        f"{KERNEL} is float64": put(0, np.float64),
        f"{KERNEL} is float16": put(0, np.float16),
        f"{KERNEL} is object": put_by(store_strings),
        f"{KERNEL} has a value that is not finite": put(np.nan),
        "has a value that is not finite": put(-np.inf),
        f"{KERNEL} is a group": put_by(
            lambda content, name: content.create_group(name)
        ),
        f"{KERNEL}, but the file has a ExternalLink": put_by(link_outside),
        "layers/conv2d_2/vars/0, but the file has a ExternalLink": link_layer,
        "but the file has a SoftLink": put_by(link_inside),
        f"{KERNEL} is not one block of 73728 bytes": put_by(store_outside),
        f"{KERNEL} is not one block of 73728": put_by(store_virtually),
        f"{KERNEL} is not one block of": put_by(compress),
        f"{KERNEL} is not one block": put_by(leave_out),
    },
    "decoder": {
        "batch_shape of 'my_input_layer' is [None, 4097]": configure(
            0, batch_input_shape=[None, 4097]
        ),
        "units of 'my_dense' is 100": configure(1, units=100),
        "is [7, 7, 256], expected [14, 14, 64]": configure(2, target_shape=[7, 7, 256]),
        "is [1, 2], expected one of [[1, 1], [2, 2]]": configure(4, strides=[1, 2]),
        "strides are [1, 1, 1, 1, 1], expected one 2": configure(5, strides=[1, 1]),
        "strides are [2, 1, 2, 1, 1], expected one 2": configure(3, strides=[2, 2]),
        "is [1, 1], expected None": configure(4, output_padding=[1, 1]),
        "is 'relu', expected 'sigmoid'": configure(-1, activation="relu"),
        "(3, 3, 64, 32), expected float32 (3, 3, 32, 64)": put(
            0, shape=(3, 3, 64, 32), name="layers/conv2d_transpose_3/vars/0"
        ),
    },
}


@pytest.mark.parametrize(
    ("part", "message"), [(part, text) for part in UNFIT for text in UNFIT[part]]
)
def test_another_architecture_is_one_line(
    pair, tmp_path, monkeypatch, capsys, part, message
):
    file = KerasFile(part)
    UNFIT[part][message](file)
    path = file.write(tmp_path / "bad.keras")
    assert_refused(monkeypatch, capsys, message, **{**pair, part: path})


def assert_refused(monkeypatch, capsys, message, encoder, decoder):
    bad = encoder if "bad" in encoder.name else decoder
    part = "encoder" if bad is encoder else "decoder"
    out = bad.parent / "run"
    flags = dict(encoder=encoder, decoder=decoder, out=out)
    status, _, errors = command(monkeypatch, capsys, import_keras.main, **flags)
    assert status == 2
    assert errors.startswith(f"error: --{part}={bad}: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not out.exists()
    assert not list(bad.parent.glob(".*"))


# Files that are no good `.keras` file at all.


def drop(name):
    return lambda members: {k: v for k, v in members.items() if k != name}


def replace(name, content):
    return lambda members: {**members, name: content}


def shorten_weights(members):
    return {**members, WEIGHTS: members[WEIGHTS][:-1]}


def foreign_hdf5():
    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        content["model_weights/dense/kernel"] = np.zeros(3)
    return file.getvalue()


BAD_MEMBERS = {
    "has no member metadata.json": drop("metadata.json"),
    "has no member config.json": drop("config.json"),
    f"has no member {WEIGHTS}": drop(WEIGHTS),
    "metadata.json is damaged or something else": replace("metadata.json", "{"),
    "config.json is damaged or something else": replace("config.json", "[1, 2]"),
    "RecursionError": replace("config.json", "[" * 200_000),
    "config.json has 2000000 bytes, expected at most": replace(
        "config.json", " " * 2_000_000
    ),
    f"{WEIGHTS} has 50000000 bytes, expected at most": replace(
        WEIGHTS, bytes(50_000_000)
    ),
    f"{WEIGHTS} is damaged or something else": replace(WEIGHTS, b"HDF"),
    f"{WEIGHTS} is damaged": shorten_weights,
    "layers/conv2d/vars/0, but the file lacks": replace(WEIGHTS, foreign_hdf5()),
}


@pytest.fixture(scope="module")
def members():
    return KerasFile("encoder").members()


@pytest.mark.parametrize("message", BAD_MEMBERS)
def test_bad_members_are_one_line(
    pair, members, tmp_path, monkeypatch, capsys, message
):
    changed = BAD_MEMBERS[message](members)
    bad = write_zip(tmp_path / "bad.keras", changed, zipfile.ZIP_DEFLATED)
    flags = dict(encoder=bad, decoder=pair["decoder"])
    assert_refused(monkeypatch, capsys, message, **flags)


def test_bad_archives_are_one_line(pair, tmp_path, monkeypatch, capsys):
    whole, bad = pair["encoder"].read_bytes(), tmp_path / "bad.keras"
    flags = dict(encoder=bad, decoder=pair["decoder"])
    assert_refused(monkeypatch, capsys, "no such file", **flags)
    bad.mkdir()
    assert_refused(monkeypatch, capsys, "no such file", **flags)
    bad.rmdir()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content, message in (
        (b"", "the zip archive is damaged"),
        (whole[:middle], "the zip archive is damaged"),
        (flipped, f'{WEIGHTS} is damaged or something else: BadZipFile("Bad CRC-32'),
    ):
        bad.write_bytes(content)
        assert_refused(monkeypatch, capsys, message, **flags)


def test_swapped_files_are_told(pair, tmp_path):
    with pytest.raises(UserError, match="--encoder=.*holds the decoder.*swapped"):
        import_keras.import_keras(pair["decoder"], pair["encoder"], tmp_path)
    with pytest.raises(UserError, match="--decoder=.*holds the encoder.*swapped"):
        import_keras.import_keras(pair["encoder"], pair["encoder"], tmp_path)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(data=st.data())
def test_any_damage_to_the_hdf5_is_told_or_harmless(members, tmp_path_factory, data):
    """Under a correct checksum: a file made to hurt, not one that was hurt."""
    content = bytearray(members[WEIGHTS])
    with h5py.File(io.BytesIO(bytes(content))) as file:
        first = file[KERNEL].id.get_offset()
    for _ in range(data.draw(st.integers(1, 3))):  # the structure lies in front
        place = data.draw(st.integers(0, first - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "e.keras"
    write_zip(path, {**members, WEIGHTS: bytes(content)})
    try:
        half = keras_files.read(path, "encoder")
    except UserError as error:
        assert str(error).startswith(f"--encoder={path}: ")
        assert "\n" not in str(error)
    else:
        assert half.params["conv2"]["kernel"].shape == SHAPE
        for array in jax.tree.leaves(half.params):
            assert array.dtype == np.float32 and np.isfinite(array).all()

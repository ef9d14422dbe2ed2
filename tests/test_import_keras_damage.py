"""Bad Keras files: one line, or harmless."""

import io
import zipfile

import h5py
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_made import (
    WEIGHTS,
    KerasFile,
    command,
    write_pair,
    write_zip,
)

from emnist_jax import import_keras, keras_files
from emnist_jax.errors import UserError


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The two files of a model01; tests must not change them."""
    return write_pair(tmp_path_factory.mktemp("keras"))


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

"""Keras files: outputs against NumPy by Keras' definition; bad ones are one line."""

import copy
import hashlib
import io
import json
import zipfile

import h5py
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_made import DIM, PARTS, WEIGHTS, KerasFile, compute, write_zip

from emnist_jax import evaluate
from emnist_jax.cli.errors import UserError
from emnist_jax.models.decoders import make_decoder
from emnist_jax.runs import import_keras
from emnist_jax.storage import results

KERNEL, SHAPE = "layers/conv2d_1/vars/0", (3, 3, 32, 64)
ELSEWHERE = "/nonexistent/data.h5"


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
    up = make_decoder(decoder).upsampling_layer
    pair = [KerasFile(p, up, keras, activation) for p in PARTS]
    paths = [f.write(tmp_path / f"{i}.keras") for i, f in enumerate(pair)]
    run = import_keras.import_keras(*paths, tmp_path / "run")
    assert run.config["decoder"] == decoder
    images = np.random.default_rng(2).random((1, 28, 28, 1))
    latents = compute(pair[0], images)
    np.testing.assert_allclose(in_float64(run.encoder, images), latents, rtol=1e-9)
    assert (latents < 0).any() == (activation == "linear")
    expected = compute(pair[1], latents)
    assert expected.std() > 0.02
    np.testing.assert_allclose(in_float64(run.decoder, latents), expected, rtol=1e-9)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The two files of a model01 whose first latent is dead."""
    folder = tmp_path_factory.mktemp("keras")
    encoder = KerasFile("encoder")
    encoder.weights["layers/dense/vars/1"][:] = (-1e6, 1e3, 1e3)
    return {
        "encoder": encoder.write(folder / "e.keras"),
        "decoder": KerasFile("decoder").write(folder / "d.keras"),
    }


@pytest.fixture
def imported(pair, tmp_path):
    """An imported run."""
    return import_keras.import_keras(**pair, out=tmp_path / "run").path


def test_origin_is_kept(pair, tmp_path, capsys):
    imported = tmp_path / "run"
    import_keras.main([f"--{k}={v}" for k, v in {**pair, "out": imported}.items()])
    assert "model01, 3 relu latents, 310,020 parameters" in capsys.readouterr().out
    record = results.load_results(imported)
    assert (record["status"], record["config"]["preset"]) == ("imported", "published")
    for part, path in pair.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert record["origin"][part]["sha256"] == digest
    assert record["origin"]["decoder"]["keras_version"] == "2.1.0"
    about = json.loads((imported / "config.json").read_text())
    assert about["origin"] == record["origin"]


@pytest.mark.long
def test_imported_run_is_evaluated(imported):
    about = json.loads((imported / "config.json").read_text())
    about["config"]["test_examples"] = 20  # to be quick
    (imported / "config.json").write_text(json.dumps(about))
    evaluate.main([f"--run={imported}", "--dataset=glyphs"])
    test = results.load_results(imported)["test"]
    latents = np.load(imported / "latents" / "test.npy")
    assert (np.ptp(latents, axis=0) > 0).tolist() == [False, True, True]
    assert test["active_latents"] == 2 and 0 < test["autoencoder"]["mse"] < 1


def test_what_does_not_fit_writes_nothing(pair, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=f"^--out={tmp_path}: exists already; name a n"):
        import_keras.import_keras(**pair, out=tmp_path)
    out = tmp_path / "run"
    other = KerasFile("decoder", dim=4).write(tmp_path / "d.keras")
    with pytest.raises(UserError, match="takes 4 latents, but .* gives 3"):
        import_keras.import_keras(pair["encoder"], other, out)
    with pytest.raises(UserError, match="^--encoder=.* of the encoder is .'InputL"):
        import_keras.import_keras(pair["decoder"], pair["encoder"], out)
    monkeypatch.setattr(import_keras, "h5py", None)  # it is optional
    with pytest.raises(UserError, match=r"needs: pip install 'emnist-jax\[keras\]'"):
        import_keras.import_keras(**pair, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["d.keras"]


# Files that are not of this architecture, or no good `.keras` file at all.

WRONG = {
    "batch_input_shape": [None, 32, 32, 1],
    "filters": 65,
    "kernel_size": [5, 5],
    "strides": [1, 2],
    "padding": "valid",
    "data_format": "channels_first",
    "dilation_rate": [2, 2],
    "groups": 2,
    "output_padding": [1, 1],
    "activation": "elu",
    "use_bias": False,
    "dtype": {"config": {"name": "mixed_float16"}},
    "units": 100,
    "target_shape": [7, 7, 256],
}


@pytest.mark.parametrize("part", PARTS)
def test_every_field_of_every_layer_counts(part):
    body = KerasFile(part).body
    assert import_keras._match(body, part)[0]["latent_dim"] == DIM
    for place, layer in enumerate(body["layers"]):
        for field in layer["config"].keys() & WRONG.keys():
            changed = copy.deepcopy(body)
            changed["layers"][place]["config"][field] = WRONG[field]
            if field == "units" and part == "encoder":  # as good a latent_dim
                changed["layers"][place]["config"][field] = 4097
            with pytest.raises(UserError, match=r", expected"):
                import_keras._match(changed, part)


def put(value):
    return lambda file: file.weights.update({KERNEL: value})


def store(dtype="f4", **options):
    return put(
        lambda content, name: content.create_dataset(name, SHAPE, dtype, **options)
    )


def link_outside(content, name):
    content[name] = h5py.ExternalLink(ELSEWHERE, name)


def link_group_outside(file):
    del file.weights[KERNEL], file.weights["layers/conv2d_1/vars/1"]
    file.weights["layers/conv2d_1"] = link_outside


def store_virtually(content, name):
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource(ELSEWHERE, name, SHAPE)
    content.create_virtual_dataset(name, layout)


def skip_layer(file):
    file.layers[4]["inbound_nodes"] = file.layers[3]["inbound_nodes"]


UNFIT = [
    (lambda f: f.body.update(layers=7), "is damaged or something else (TypeError"),
    (lambda f: f.layers.clear(), "the layers are not a chain"),
    (skip_layer, "the layers are not a chain, each fed by the last"),
    (lambda f: f.body.update(output_layers=[["my_flatten", 0, 0]]), "not a chain"),
    (lambda f: f.layers[2].update(module="own"), "layer 2 of the encoder is ('own.Con"),
    (lambda f: f[-1].update(units=0), "0 latents, expected 1 to 4096"),
    (lambda f: f.metadata.clear(), "(KeyError: 'keras_version')"),
    (lambda f: f.weights.clear(), "model.weights.h5 has no array layers/conv2d/vars/0"),
    (put(lambda content, name: content.create_group(name)), f"has no array {KERNEL}"),
    (put(link_outside), f"has no array {KERNEL}"),
    (link_group_outside, f"has no array {KERNEL}"),
    (put(np.zeros((3, 3, 64, 32), "f4")), f"(3, 3, 64, 32), expected float32 {SHAPE}"),
    (store("f8"), f"{KERNEL} is float64"),
    (store(h5py.string_dtype()), f"{KERNEL} is object"),
    (put(np.full(SHAPE, np.nan, "f4")), f"{KERNEL} has a value that is not finite"),
    (store(external=[(ELSEWHERE, 0, 99999)]), f"{KERNEL} is not one block of 73728"),
    (put(store_virtually), f"{KERNEL} is not one block of 73728 bytes"),
    (store(compression="gzip"), f"{KERNEL} is not one block of 73728 bytes"),
    (store(), f"{KERNEL} is not one block of 73728 bytes"),  # nothing but a default
]


@pytest.mark.parametrize(("change", "message"), UNFIT)
def test_another_architecture_is_one_line(tmp_path, change, message):
    file = KerasFile("encoder")
    change(file)
    assert_refused(file.write(tmp_path / "bad.keras"), message)


def assert_refused(path, message):
    with pytest.raises(UserError) as error:
        import_keras._read(path, "encoder")
    assert str(error.value).startswith(f"--encoder={path}: ")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.fixture(scope="module")
def members():
    return KerasFile("encoder").members()


BAD_MEMBERS = [
    ("metadata.json", None, "There is no item named 'metadata.json'"),
    (WEIGHTS, None, f"There is no item named '{WEIGHTS}'"),
    ("config.json", "{", "is damaged or something else (JSONDecodeError"),
    ("config.json", b"\xff" * 10_000, "(UnicodeDecodeError"),
    ("config.json", "[1, 2]", "is damaged or something else (TypeError"),
    ("config.json", "[" * 200_000, "(RecursionError"),
    ("config.json", " " * 2_000_000, "config.json claims 2000000 bytes, more than"),
    (WEIGHTS, bytes(50_000_000), f"{WEIGHTS} claims 50000000 bytes, more than"),
    (WEIGHTS, b"HDF", "is damaged or something else (OSError"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_MEMBERS)
def test_bad_members_are_one_line(members, tmp_path, name, content, message):
    changed = {k: v for k, v in {**members, name: content}.items() if v is not None}
    bad = write_zip(tmp_path / "bad.keras", changed, zipfile.ZIP_DEFLATED)
    assert_refused(bad, message)


def test_bad_archives_are_one_line(pair, members, tmp_path):
    whole, bad = pair["encoder"].read_bytes(), tmp_path / "bad.keras"
    assert_refused(bad, "No such file")
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content, message in (
        (b"", "is damaged or something else (BadZipFile"),
        (whole[:middle], "is damaged or something else (BadZipFile"),
        (flipped, "(BadZipFile: Bad CRC-32 for file 'model.weights.h5')"),
    ):
        bad.write_bytes(content)
        assert_refused(bad, message)
    write_zip(bad, members, zipfile.ZIP_LZMA)  # which asks for any amount of memory
    assert_refused(bad, "is packed by method 14")


@settings(derandomize=True, deadline=None, max_examples=150)
@given(data=st.data())
def test_any_damage_to_the_hdf5_is_told_or_harmless(members, data):
    """Under a correct checksum: a file made to hurt, not one that was hurt."""
    content = bytearray(members[WEIGHTS])
    with h5py.File(io.BytesIO(members[WEIGHTS])) as file:
        first = file[KERNEL].id.get_offset()
    for _ in range(data.draw(st.integers(1, 3))):  # the structure lies in front
        content[data.draw(st.integers(0, first - 1))] = data.draw(st.integers(0, 255))
    try:
        with h5py.File(io.BytesIO(bytes(content))) as file:
            params = import_keras._read_weights(file, {"conv2": SHAPE})
    except Exception:  # which `_read` tells in a line
        return
    assert params["conv2"]["kernel"].shape == SHAPE
    for array in params["conv2"].values():
        assert array.dtype == np.float32 and np.isfinite(array).all()

"""Keras weights: outputs against NumPy by Keras' own definition."""

import json
import re
import sys

import jax
import numpy as np
import pytest
from keras_made import LATENT_DIM, KerasFile, command, write_pair

import emnist_jax
from emnist_jax import evaluate, import_keras, results
from emnist_jax.errors import UserError
from emnist_jax.models.decoders import DECODERS

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
    monkeypatch.delitem(sys.modules, "emnist_jax.keras_files", raising=False)
    monkeypatch.delattr(emnist_jax, "keras_files", raising=False)
    with pytest.raises(UserError, match=r"needs h5py: pip install 'emnist-jax\[keras"):
        import_keras.import_keras(**pair, out=tmp_path / "run")


def test_swapped_files_are_told(pair, tmp_path):
    with pytest.raises(UserError, match="--encoder=.*holds the decoder.*swapped"):
        import_keras.import_keras(pair["decoder"], pair["encoder"], tmp_path)
    with pytest.raises(UserError, match="--decoder=.*holds the encoder.*swapped"):
        import_keras.import_keras(pair["encoder"], pair["encoder"], tmp_path)

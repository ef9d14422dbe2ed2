"""Exported runs give what the run gives, without Flax and without us."""

import functools
import subprocess
import sys

import jax
import numpy as np
import onnxruntime
import pytest

import emnist_jax
from emnist_jax import cpu
from emnist_jax.cli.errors import UserError
from emnist_jax.config import compose, make_config
from emnist_jax.devices import parallel
from emnist_jax.devices.mapping import AXIS
from emnist_jax.runs import export, onnx_form
from emnist_jax.training.step import make_train_step

TRAIN = """
import sys, numpy as np, jax
folder = sys.argv[1]
with open(f"{folder}/step.stablehlo", "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))
assert program.platforms == ("cpu", "cuda", "rocm", "tpu")
with np.load(f"{folder}/state.npz") as arrays:
    state = [arrays[name] for name in arrays]
images = np.load(f"{folder}/images.npy")
for _ in range(2):
    state, metrics = program.call(state, images)
np.savez(f"{folder}/after.npz", *state, **metrics)
assert not {*sys.modules} & {"flax", "optax", "emnist_jax"}
"""

READ = """
import sys, numpy as np, jax
folder = sys.argv[1]
programs = {}
for name in ("encoder", "decoder", "autoencoder"):
    with open(f"{folder}/{name}.stablehlo", "rb") as file:
        programs[name] = jax.export.deserialize(bytearray(file.read()))
assert programs["encoder"].platforms == ("cpu", "cuda", "rocm", "tpu")
images = np.load(f"{folder}/images.npy")
latents = programs["encoder"].call(images)
np.save(f"{folder}/latents.npy", latents)
np.save(f"{folder}/again.npy", programs["decoder"].call(latents))
whole = programs["autoencoder"].call(images)
assert np.array_equal(np.load(f"{folder}/again.npy"), whole)
assert not {*sys.modules} & {"flax", "emnist_jax", "orbax"}
"""


def test_stablehlo_is_read_without_flax(run_path, images, tmp_path):
    run, out = emnist_jax.load_run(run_path), tmp_path / "out"
    assert [p.name for p in export.export(run, "stablehlo", out)]
    inputs = np.float32(images[:5] / 255)
    np.save(out / "images.npy", inputs)
    subprocess.run([sys.executable, "-c", READ, str(out)], check=True, cwd=tmp_path)
    latents = run.encode(inputs)
    np.testing.assert_allclose(np.load(out / "latents.npy"), latents, atol=1e-5)
    again = np.load(out / "again.npy")
    np.testing.assert_allclose(again, run.decode(latents), atol=1e-5)


def test_onnx_gives_what_jax_gives_in_any_batch(run_path, images, tmp_path):
    run, out = emnist_jax.load_run(run_path), tmp_path / "out"
    export.main([f"--run={run_path}", "--format=onnx", f"--out={out}"])
    session = onnxruntime.InferenceSession(out / "autoencoder.onnx")
    for count in (1, 3):
        inputs = np.float32(images[:count] / 255)
        (found,) = session.run(None, {"images": inputs})
        np.testing.assert_allclose(found, run.reconstruct(inputs), atol=1e-5)
    with pytest.raises(UserError, match="out"):
        export.export(run, "onnx", out)


def test_what_cannot_be_exported_is_said(run_path, monkeypatch, tmp_path):
    run = emnist_jax.load_run(run_path)
    with pytest.raises(UserError, match="--format=tf is unknown: give stablehlo or"):
        export.export(run, "tf", tmp_path / "out")
    monkeypatch.setattr(onnx_form, "Decoder", int)
    with pytest.raises(UserError, match="knows the layers of int only, not those of D"):
        onnx_form.to_onnx(run)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'emnist-jax\[onnx\]'"):
        onnx_form.to_onnx(run)


@pytest.mark.long
def test_the_train_step_is_one_artefact_for_all_platforms(images, tmp_path):
    """Of one device; its state goes in and out as a list of arrays."""
    config = make_config(preset="robust", decoder="model02", batch_size=8)
    model, optimizer = compose.autoencoder(config), compose.optimizer(config, 100)
    state = compose.first_state(config, model, optimizer)
    train_step = make_train_step(compose.loss_of(config, model), optimizer)
    leaves, form = jax.tree.flatten(state)

    def step(leaves, batch):
        whole = functools.partial(train_step, form.unflatten(leaves))
        after, metrics = jax.vmap(whole, out_axes=None, axis_name=AXIS)(batch[None])
        return jax.tree.leaves(after), metrics

    with cpu.plain_layers():  # the kernels are code of this machine
        program = jax.export.export(jax.jit(step), platforms=export.PLATFORMS)
        content = program(leaves, images[:8]).serialize()
    (tmp_path / "step.stablehlo").write_bytes(content)
    np.savez(tmp_path / "state.npz", *leaves)
    np.save(tmp_path / "images.npy", images[:8])
    subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path)], check=True)
    pmapped = parallel.pmapped(train_step, (None, 0), None)  # kernels, two devices
    for _ in range(2):
        state, metrics = pmapped(state, parallel.split(images[:8]))
    with np.load(tmp_path / "after.npz") as found:
        assert int(found["arr_0"]) == 2
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(found[name], metrics[name], rtol=1e-3)

import dataclasses
import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

import emnist_jax
from emnist_jax import data, evaluate
from emnist_jax.cli.errors import UserError
from emnist_jax.config.compose import select
from emnist_jax.storage import checkpoints, results
from emnist_jax.train import train_and_evaluate


def test_the_run_folder_holds_what_the_readme_says(run_path):
    found = {str(p.relative_to(run_path)) for p in run_path.rglob("*")}
    assert found >= {
        "config.json",
        "metrics.jsonl",
        "results.json",
        "checkpoints",
        "encoder/manifest.json",
        "decoder/manifest.json",
        *(f"latents/{s}{x}.npy" for s in ("train", "test") for x in ("", "_labels")),
        "latents/train_indices.npy",
        *(f"figures/{x}.png" for x in ("loss", "reconstructions", "best_and_worst")),
        "figures/test.npz",
    }
    assert not [name for name in found if ".emnist_jax-" in name]


def test_results_follow_their_schema(finished, run_path):
    config, returned = finished
    stored = results.load_results(run_path)
    assert stored == json.loads(json.dumps(returned))
    assert stored["status"] == "finished"
    assert stored["dataset"]["name"] == "glyphs"
    sizes = [stored["dataset"][x] for x in ("train", "validation", "test")]
    assert sizes == [80, 20, 30]
    assert stored["config"] == dataclasses.asdict(config)
    assert stored["model"]["parameters"]["total"] == 1_037_601
    assert stored["training"]["epochs"] == 2
    assert stored["training"]["stopped"] == "completed"
    test = stored["test"]
    assert set(test["autoencoder"]) >= {"mse", "psnr", "ssim", "mse_8bit"}
    assert test["largest_difference"] < 1e-5
    assert test["active_latents"] == 32
    assert len(test["published_protocol"]["images"]) == 10
    for field in ("jax", "device", "processor", "cores"):
        assert field in stored["environment"]
    assert stored["timing"]["training_images_per_second"] > 0


def test_metrics_are_those_of_the_stored_reconstructions(finished, run_path):
    config, stored = finished
    images = select(config).test.images / np.float32(255)
    run = emnist_jax.load_run(run_path)
    latents = np.load(run_path / "latents" / "test.npy")
    outputs = run.decode(latents)
    mse = ((images - outputs) ** 2).mean(axis=(1, 2, 3))
    for path in evaluate.PATHS:
        np.testing.assert_allclose(stored["test"][path]["mse"], mse.mean(), rtol=1e-5)
    with np.load(run_path / "figures" / "test.npz") as file:
        np.testing.assert_allclose(file["decoder_only_mse"], mse, rtol=1e-4)
    protocol = stored["test"]["published_protocol"]
    chosen = protocol["images"]
    ranges = np.ptp(images[chosen].reshape(10, -1), axis=1)
    psnr = 10 * np.log10(ranges**2 / mse[chosen])
    np.testing.assert_allclose(protocol["decoder_only"]["psnr"], psnr.mean(), rtol=1e-4)


def test_rows_of_latents_are_rows_of_images(finished, run_path):
    config, _ = finished
    selection = select(config)
    whole = data.load("glyphs")
    run = emnist_jax.load_run(run_path)
    for name, split, source in (
        ("train", selection.whole_train, whole.train),
        ("test", selection.test, whole.test),
    ):
        latents = np.load(run_path / "latents" / f"{name}.npy")
        rows = np.load(run_path / "latents" / f"{name}_indices.npy")
        labels = np.load(run_path / "latents" / f"{name}_labels.npy")
        assert latents.dtype == np.float32 and latents.shape == (len(split), 32)
        np.testing.assert_array_equal(source.labels[rows], labels)
        np.testing.assert_allclose(
            run.encode(source.images[rows]), latents, rtol=1e-5, atol=1e-6
        )


def test_sizes_are_those_of_the_arrays(finished, run_path):
    _, stored = finished
    assert stored["sizes"] == {
        "images": 100,
        "images_uint8_bytes": 100 * 784,
        "images_float32_bytes": 100 * 784 * 4,
        "latents_bytes": 100 * 32 * 4,
        "latents_file_bytes": (run_path / "latents" / "train.npy").stat().st_size,
        "bits_per_pixel": 8 * 128 / 784,
    }


def test_the_published_size_table():
    images = np.broadcast_to(np.uint8(0), (112_800, 28, 28, 1))
    latents = np.broadcast_to(np.float32(0), (112_800, 32))
    assert round(images.nbytes / 2**20, 3) == 84.338
    assert round(latents.nbytes / 2**20, 3) == 13.770


def test_figures_are_pictures(run_path):
    for path in (run_path / "figures").glob("*.png"):
        picture = matplotlib.image.imread(path)
        assert picture.shape[0] > 150 and picture.std() > 0.01


def test_a_finished_run_is_not_trained_again(finished, run_path, capsys):
    config, stored = finished
    before = (run_path / "results.json").stat().st_mtime_ns
    assert train_and_evaluate(config) == json.loads(json.dumps(stored))
    assert "is finished" in capsys.readouterr().out
    assert (run_path / "results.json").stat().st_mtime_ns == before


def test_another_config_is_refused(finished):
    config, _ = finished
    other = dataclasses.replace(config, learning_rate=0.1, run_name=config.name)
    with pytest.raises(UserError, match=r"learning_rate=0.005 \(now 0.1\)"):
        train_and_evaluate(other)


def test_a_folder_of_something_else_is_refused(finished, tmp_path):
    config, _ = finished
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    other = dataclasses.replace(config, workdir=str(tmp_path), run_name="mine")
    with pytest.raises(UserError, match=r"no config.json but holds thesis.tex"):
        train_and_evaluate(other)


def test_batch_sizes_that_cannot_be_are_refused(finished):
    config, _ = finished
    for size, message in ((7, "divisible by the 2 devices"), (98, "more than the 80")):
        with pytest.raises(UserError, match=f"--batch_size={size}: .*{message}"):
            train_and_evaluate(
                dataclasses.replace(config, batch_size=size, run_name="x")
            )


def test_evaluate_again(run_copy):
    stored = results.load_results(run_copy)
    (run_copy / "figures" / "reconstructions.png").unlink()
    evaluate.main([f"--run={run_copy}"])
    again = results.load_results(run_copy)
    assert (run_copy / "figures" / "reconstructions.png").exists()
    del again["timing"], stored["timing"]
    assert again == stored


def test_launch_on_few_glyphs(tmp_path, finished):
    """As a process; of the same programs as the finished run, which are compiled."""
    config, _ = finished
    names = "decoder train_examples test_examples validation_fraction batch_size epochs"
    command = [
        sys.executable,
        "launch.py",
        "--dataset=glyphs",
        *(f"--{name}={getattr(config, name)}" for name in names.split()),
        f"--workdir={tmp_path}",
        "--profile",
        "--tensorboard",
        "--run_name=few",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "few"
    assert list(run.glob("profile/**/*.pb")) or list(run.glob("profile/**/*.gz"))
    assert list(run.glob("tensorboard/events*"))
    for text in ("80 train", "epoch   2/2", " of 32", "bits per pixel (float32)"):
        assert text in done.stdout
    assert max(map(len, done.stdout.split("\ntrained in")[0].splitlines())) <= 80
    stored = json.loads((run / "config.json").read_text())["config"]
    assert stored["optimizer"] == config.optimizer


def test_encoder_loads_without_the_rest(run_path, tmp_path):
    for part in ("encoder", "decoder"):
        tree, about = checkpoints.load(run_path / part)
        assert about["part"] == part and about["latent_dim"] == 32
        assert all(isinstance(x, dict) for x in tree.values())

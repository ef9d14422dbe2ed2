"""The same call gives the same numbers, whatever the batches and the devices."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from tools import kill_study

import emnist_jax
from emnist_jax.evaluate import evaluate
from emnist_jax.storage import results

EXACT = dict(rtol=0, atol=1e-6)


def per_image(run, images, latents):
    """Every measure of every image, as `evaluate` writes them."""
    evaluate(run, images, latents, seed=0)
    with np.load(run.path / "figures" / "test.npz") as file:
        return dict(file)


@pytest.mark.long
def test_batches_do_not_change_metrics(run_copy, images):
    run = emnist_jax.load_run(run_copy)
    many = np.concatenate([images, images[:, ::-1], images.swapaxes(1, 2)] * 2)
    many = many[:300]  # a whole call of 256 and a part of one
    latents = run.encode(many)
    whole = per_image(run, many, latents)
    assert set(whole) >= {"autoencoder_mse", "decoder_only_ssim"}
    ends = np.cumsum([1, 7, 128, 164])
    parts = [
        per_image(run, *part)
        for part in zip(
            np.split(many, ends)[:-1], np.split(latents, ends), strict=False
        )
    ]
    for name, values in whole.items():
        ours = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(ours, values, **EXACT, err_msg=name)


def process(*arguments, without=(), **options):
    environment = {k: v for k, v in os.environ.items() if k not in without}
    environment |= options.pop("environment", {})
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done


def numbers(value, name=""):
    """The numbers in a tree of JSON, by their place."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {
            k: v for key, x in items for k, v in numbers(x, f"{name}/{key}").items()
        }
    return {name: value}


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 8])
def test_devices_do_not_change_results(devices, run_copy):
    """The run was made on two devices."""
    before = results.load_results(run_copy)["test"]
    latents = np.load(run_copy / "latents" / "test.npy")
    process(
        *("-m", "emnist_jax.evaluate", f"--run={run_copy}"),
        environment={"JAX_NUM_CPU_DEVICES": str(devices)},
    )
    after = results.load_results(run_copy)["test"]
    found = np.load(run_copy / "latents" / "test.npy")
    np.testing.assert_allclose(found, latents, **EXACT)
    before, after = numbers(before), numbers(after)
    assert before.keys() == after.keys()
    for name, value in before.items():
        # A PSNR is in dB, tens of them.
        tolerance = 1e-4 if "psnr" in name else 1e-6
        assert abs(after[name] - value) <= tolerance, name


@pytest.mark.long  # test_kill.py compares runs of processes that share the cache
def test_programs_that_are_compiled_again_give_the_same_results(
    finished, run_path, tmp_path
):
    config = dataclasses.replace(finished[0], workdir=str(tmp_path))
    process(*kill_study.command(config)[1:], without=["JAX_COMPILATION_CACHE_DIR"])
    found, wanted = map(kill_study.contents, (tmp_path / config.name, run_path))
    assert found == wanted

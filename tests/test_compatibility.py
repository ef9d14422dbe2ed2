"""What versions before have written is read; `docs/formats.md` promises it."""

import numpy as np
import pytest
from codec_models import GOLDEN, golden_images

import emnist_jax
from emnist_jax.config import stored_config
from emnist_jax.runs import compare
from emnist_jax.storage import results

RUNS = sorted(GOLDEN.glob("run-*"))


def test_there_is_a_run_of_every_version():
    assert GOLDEN / "run-0.1.0" in RUNS


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_runs_of_every_version_encode_and_decode(path):
    run = emnist_jax.load_run(path)
    with np.load(path / "expected.npz") as expected:
        latents, images = expected["latents"], expected["images"]
    found = run.encode(golden_images())
    np.testing.assert_allclose(found, latents, atol=2e-3 * np.abs(latents).max())
    decoded = 255 * run.decode(latents)
    assert np.abs(decoded - images).max() <= 1 and np.ptp(decoded) > 50


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_results_settings_and_logs_of_every_version_are_read(path):
    record = results.load_results(path)
    assert record["environment"]["emnist_jax"] == path.name.removeprefix("run-")
    config = stored_config(emnist_jax.load_run(path).config)
    assert (config.decoder, config.latent_dim) == ("model03", 4)
    warnings = []
    lines = results.read_metrics(path / "metrics.jsonl", warnings.append)
    assert lines and not warnings
    (row,) = compare.table(compare.find([str(path)]))
    assert row["mse"] == record["test"]["autoencoder"]["mse"] and row["dead"] == 0


def test_the_names_that_readme_shows_are_there():
    promised = {"Run", "UserError", "load_pretrained", "load_run", "read_images"}
    assert promised <= set(emnist_jax.__all__)
    assert all(hasattr(emnist_jax, name) for name in promised)
    assert all(hasattr(emnist_jax.Run, name) for name in ("encode", "decode"))
    from emnist_jax import codec

    promised = {"compress", "compress_file", "decompress", "join", "open"}
    assert promised <= set(codec.__all__)

"""Strict settings for every test: two virtual CPU devices, no silent broadcasting."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "2"
os.environ["MPLBACKEND"] = "agg"

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One compilation cache for all workers: tests compile a program once."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(base / "jax-cache"))
    jax.config.update("jax_compilation_cache_dir", folder)
    return folder


@pytest.fixture(scope="session")
def images():
    """64 soft blobs, uint8 [64, 28, 28, 1]: smooth enough to be learned."""
    generator = np.random.default_rng(0)
    centres = generator.uniform(9, 19, (64, 2, 1, 1))
    y, x = np.mgrid[:28, :28]
    squares = (y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2
    blobs = 255 * np.exp(-squares / generator.uniform(8, 40, (64, 1, 1)))
    return blobs.round().astype(np.uint8)[..., None]

"""Strict settings for every test: two virtual CPU devices, no silent broadcasting."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "2"
os.environ["MPLBACKEND"] = "agg"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One compilation cache for the session: tests compile a program once."""
    folder = os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("jax-cache"))
    )
    jax.config.update("jax_compilation_cache_dir", folder)
    return folder

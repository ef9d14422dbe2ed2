"""Every codec script runs, on a few images."""

import dataclasses
import json

import numpy as np
import pytest
from codec_models import TINY
from tools import codec_fuzz

from emnist_jax.cli.errors import UserError
from emnist_jax.data import glyphs
from experiments import (
    codec_compare,
    codec_conditioning,
    codec_speed,
    codec_trade_map,
    further_tests,
    study,
)

GLYPHS = "--dataset=glyphs"


@pytest.fixture
def run(tmp_path):
    def call(module, *arguments):
        module.main([f"--out={tmp_path / 'result.json'}", *arguments])
        return json.loads((tmp_path / "result.json").read_text())

    return call


def test_trade_map(run, tmp_path):
    result = run(codec_trade_map, f"--models={TINY}", "--images=2", GLYPHS)
    (row,) = result["rows"]
    assert row["bpp"] > 0 and row["width"] == 24
    assert (tmp_path / "result.png").read_bytes()[:4] == b"\x89PNG"


def test_fuzzing(run):
    first = run(codec_fuzz, "--files=60", "--seed=1")
    assert run(codec_fuzz, "--files=60", "--seed=1") == first
    both = run(codec_fuzz, "--files=40", "--seed=2")
    assert both["files"] == sum(both["outcomes"].values()) == 100
    kinds = {name.rpartition(": ")[2] for name in both["outcomes"]}
    assert kinds == {"refused", "right pixels"}


@pytest.mark.long
def test_comparison(run, tmp_path):
    few = GLYPHS, "--images=6", "--alone=2", "--near_every=3"
    result = run(codec_compare, *few)
    assert {"PNG", "JPEG XL", "bzip2 9", "default"} < set(result["codecs"])
    assert result["near_lossless"]["4"]["bpp"] < result["near_lossless"]["0"]["bpp"]
    assert "| bzip2 9 |" in (tmp_path / "result.md").read_text()
    with pytest.raises(UserError, match="was made with alone 2, not 3"):
        run(codec_compare, *few, "--alone=3")


@pytest.mark.long
@pytest.mark.usefixtures("few_derivatives")
def test_further_test_images(run, run_path, tmp_path, monkeypatch):
    data = glyphs.load()
    few = dataclasses.replace(data, test=data.test.select(np.arange(40)))
    monkeypatch.setattr(study, "load_dataset", lambda flags: few)
    again = data.train.images[:2, ..., 0]
    np.save(
        tmp_path / "more.npy", np.concatenate([again, data.test.images[:5, ..., 0]])
    )
    flags = f"--tests=more={tmp_path}/more.npy", f"--runs={run_path}"
    rows = run(further_tests, *flags, GLYPHS)["tests"]
    assert (rows["more"]["left_out"], rows["more"]["images"]) == (2, 5)
    assert rows["test"]["left_out"] == 0 and rows["test"]["bpp"]["default"] > 1
    lossy = rows["more"]["lossy"]  # 14 bytes are not enough for five images' tables
    assert 0 < lossy["near-lossless, off by at most 4"]["mse"] < (4 / 255) ** 2
    assert not any("latents" in name for name in lossy)
    (quality,) = rows["more"]["runs"].values()
    assert 0 < quality["mse"] < 1
    assert "| more | 5 | 2 |" in (tmp_path / "result.md").read_text()
    with pytest.raises(UserError, match="^--tests=more: give NAME=IMAGES"):
        run(further_tests, "--tests=more", GLYPHS)


def test_speed(run):
    few = "--model=fast", "--images=2", GLYPHS
    result = run(codec_speed, *few, f"--against={study.ROOT}/tests/..")
    name = f"fast, {study.ROOT.name}"
    assert result["models"][name]["decode_images_per_second"]["median"] > 0
    assert result["models"]["fast"]["encode_images_per_cpu_second"]["median"] > 0
    with pytest.raises(UserError, match="no checkout"):
        run(codec_speed, *few, "--against=/")


@pytest.mark.long
def test_conditioning(run, run_path):
    few = GLYPHS, "--steps=2", "--images=40", "--held_out=8", "--width=24"
    rows = run(codec_conditioning, f"--run={run_path}", *few)["rows"]
    assert [row["preview"] for row in rows] == [
        "none",
        "8-bit latents",
        "4-bit latents",
    ]
    assert rows[1]["bpp_latents"] > rows[2]["bpp_latents"] > 0

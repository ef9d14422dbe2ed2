"""Every codec script runs, on a few images."""

import json
import pathlib
import subprocess
import sys

from codec_models import TINY

ROOT = pathlib.Path(__file__).parents[1]
GLYPHS = "--dataset=glyphs"


def call(name, tmp_path, *arguments):
    command = [sys.executable, "-m", f"experiments.{name}"]
    command += [f"--out={tmp_path / 'result.json'}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def run(name, tmp_path, *arguments):
    done = call(name, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "result.json").read_text())


def test_trade_map(tmp_path):
    result = run("codec_trade_map", tmp_path, f"--models={TINY}", "--images=8", GLYPHS)
    (row,) = result["rows"]
    assert row["bpp"] > 0 and row["width"] == 24
    assert (tmp_path / "result.png").read_bytes()[:4] == b"\x89PNG"


def test_fuzzing(tmp_path):
    first = run("codec_fuzz", tmp_path, "--files=300", "--seed=1")
    assert run("codec_fuzz", tmp_path, "--files=300", "--seed=1") == first
    both = run("codec_fuzz", tmp_path, "--files=100", "--seed=2")
    assert both["files"] == sum(both["outcomes"].values()) == 400
    kinds = {name.rpartition(": ")[2] for name in both["outcomes"]}
    assert kinds == {"refused", "right pixels"}


def test_comparison(tmp_path):
    few = GLYPHS, "--images=12", "--alone=4", "--near_every=4"
    result = run("codec_compare", tmp_path, *few)
    assert {"PNG", "JPEG XL", "bzip2 9", "default"} < set(result["codecs"])
    assert result["near_lossless"]["4"]["bpp"] < result["near_lossless"]["0"]["bpp"]
    assert "| bzip2 9 |" in (tmp_path / "result.md").read_text()
    other = call("codec_compare", tmp_path, *few, "--alone=3")
    assert other.returncode and "was made with alone 4, not 3" in other.stderr


def test_speed(tmp_path):
    result = run("codec_speed", tmp_path, "--model=fast", "--images=8", GLYPHS)
    assert result["models"]["fast"]["decode_images_per_second"]["median"] > 0


def test_conditioning(tmp_path, run_path):
    few = GLYPHS, "--steps=2", "--images=40", "--held_out=8", "--width=24"
    rows = run("codec_conditioning", tmp_path, f"--run={run_path}", *few)["rows"]
    assert [row["preview"] for row in rows] == [
        "none",
        "8-bit latents",
        "4-bit latents",
    ]
    assert rows[1]["bpp_latents"] > rows[2]["bpp_latents"] > 0

"""Every codec script runs, on a few images."""

import json
import os
import pathlib
import subprocess
import sys

from codec_models import TINY

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


def run(script, tmp_path, *arguments):
    out = tmp_path / "result.json"
    subprocess.run(
        [sys.executable, EXPERIMENTS / script, f"--out={out}", *map(str, arguments)],
        env=os.environ | {"MPLBACKEND": "agg"},
        check=True,
    )
    return json.loads(out.read_text())


def test_trade_map(tmp_path):
    result = run("codec_trade_map.py", tmp_path, TINY, "--images=8")
    (row,) = result["rows"]
    assert row["bpp"] > 0 and row["width"] == 24
    assert (tmp_path / "result.png").read_bytes()[:4] == b"\x89PNG"


def test_rate_distortion(tmp_path, run_path):
    rows = run(
        "codec_rate_distortion.py", tmp_path, f"--run={run_path}", "--images=20"
    )["rows"]
    assert [row["bits"] for row in rows] == [32, 8, 7, 6, 5, 4, 3, 2]
    assert rows[0]["mse"] <= rows[-1]["mse"] and rows[0]["bytes"] == 20 * 128


def test_fuzzing(tmp_path):
    outcomes = run("codec_fuzz.py", tmp_path, "--files=400")["outcomes"]
    assert sum(outcomes.values()) == 400
    assert not any("WRONG" in name for name in outcomes)


def test_comparison(tmp_path):
    result = run("codec_compare.py", tmp_path, "--images=12", "--alone=4", "--every=4")
    assert {"PNG", "JPEG XL", "bzip2 9", "default"} < set(result["codecs"])
    assert result["near_lossless"]["4"]["bpp"] < result["near_lossless"]["0"]["bpp"]
    assert "| bzip2 9 |" in (tmp_path / "result.md").read_text()


def test_speed(tmp_path):
    result = run("codec_speed.py", tmp_path, "--model=fast", "--images=8")
    assert result["models"]["fast"]["decode_images_per_second"]["median"] > 0


def test_conditioning(tmp_path, run_path):
    few = "--steps=2", "--images=40", "--held_out=8", "--width=24"
    rows = run("codec_conditioning.py", tmp_path, f"--run={run_path}", *few)["rows"]
    assert [row["preview"] for row in rows] == [
        "none",
        "8-bit latents",
        "4-bit latents",
    ]
    assert rows[1]["bpp_latents"] > rows[2]["bpp_latents"] > 0

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from experiments.benchmarks import throughput
from experiments.benchmarks.peers.protocol import MEASURES

MODULE = "experiments.benchmarks.throughput"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", MODULE, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2"},  # workers have one all the same
    )


def test_smoke(tmp_path):
    output = tmp_path / "throughput.json"
    done = run(
        "--decoders=model02",
        "--batch_size=2",
        "--repeats=2",
        "--seconds=0.001",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    peers = {"pytorch": ["torch"], "keras": ["keras", "tensorflow"]}
    missing = [
        name
        for name, packages in peers.items()
        if not all(importlib.util.find_spec(package) for package in packages)
    ]
    assert results["absent"] == missing
    for name in missing:
        assert f"{name}: absent" in done.stdout
    present = [name for name in throughput.FRAMEWORKS if name not in missing]
    found = {(row["framework"], row["measure"]) for row in results["rows"]}
    assert found == {(name, what) for name in present for what in MEASURES}
    for row in results["rows"]:
        assert 0 < row["lowest"] <= row["images_per_second"] <= row["highest"]
        assert row["compile_seconds"] > 0 and row["share_of_limit"] > 0
    assert results["hardware"]["cores"] >= 1
    assert results["versions"]["emnist_jax"]["jax"]
    for word in ("model02", "train", "encode", "decode", "limit", "1.00x"):
        assert word in done.stdout


def test_multiply_adds_are_those_of_the_architecture():
    encode = 784 * 9 * 32 + 196 * 9 * (32 * 64 + 2 * 64 * 64) + 12544 * 32
    decode = 32 * 12544 + 9 * (3 * 196 * 64 * 64 + 784 * 64 * 32 + 784 * 32)
    assert throughput.multiply_adds("model01", "encode") == encode
    assert throughput.multiply_adds("model01", "decode") == decode
    assert throughput.multiply_adds("model01", "train") == 3 * (encode + decode)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--decoders=model05", "--decoders=model05: 'model05' is none of model01"),
        ("--frameworks=flax", "--frameworks=flax: must include emnist_jax"),
        ("--repeats=0", "--repeats=0: must be above 0"),
    ],
)
def test_user_errors(argument, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["throughput", argument])
    with pytest.raises(throughput.UserError, match=message):
        throughput.main()

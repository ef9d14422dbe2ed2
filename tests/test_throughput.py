import importlib.util
import json

import pytest

from experiments.benchmarks import throughput
from experiments.benchmarks.peers.protocol import MEASURES


@pytest.mark.long
def test_smoke(tmp_path, capsys):
    output = tmp_path / "throughput.json"
    call = ["--decoders=model02", "--batch_size=2", "--repeats=2", "--seconds=0.001"]
    throughput.main([*call, f"--output={output}"])  # workers are real processes
    printed = capsys.readouterr().out
    results = json.loads(output.read_text())
    peers = {"pytorch": ["torch"], "keras": ["keras", "tensorflow"]}
    missing = [
        name
        for name, packages in peers.items()
        if not all(importlib.util.find_spec(package) for package in packages)
    ]
    assert results["absent"] == missing
    for name in missing:
        assert f"{name}: absent" in printed
    present = [name for name in throughput.FRAMEWORKS if name not in missing]
    found = {(row["framework"], row["measure"]) for row in results["rows"]}
    assert found == {(name, what) for name in present for what in MEASURES}
    for row in results["rows"]:
        assert 0 < row["lowest"] <= row["images_per_second"] <= row["highest"]
        assert row["compile_seconds"] > 0 and row["share_of_limit"] > 0
    assert results["hardware"]["cores"] >= 1
    assert results["versions"]["emnist_jax"]["jax"]
    for word in ("model02", "train", "encode", "decode", "limit", "1.00x"):
        assert word in printed


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
        ("--seconds=0", "--seconds=0.0: must be above 0"),
        ("--frameworks=flax", "--frameworks=flax: must include emnist_jax"),
        ("--repeats=0", "--repeats=0: must be at least 1"),
    ],
)
def test_user_errors(argument, message):
    with pytest.raises(throughput.UserError, match=message):
        throughput.main([argument])

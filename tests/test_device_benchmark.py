import json

import pytest

from emnist_jax.storage import files
from experiments.benchmarks import device


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_command(tmp_path, capsys, monkeypatch):
    """All that it does on a device, on the CPU: small, and with one part that fails."""
    monkeypatch.setattr(
        device, "CODEC", device.CODEC.replace("found = {}", "found = 1")
    )
    few = [
        "--decoders=model02",
        "--dtypes=bfloat16",
        "--tests=codec_rans",
        "--images=20",
    ]
    few += ["--batch_size=2", "--repeats=1", "--seconds=0.001"]
    few += ["--epochs=1", "--examples=150"]
    device.main([*few, f"--output={tmp_path}/device.json"])
    found = files.read_json(tmp_path / "device.json")["parts"]
    for framework in ("emnist_jax", "flax"):
        rates = found[f"rates, model02, bfloat16, {framework}"]
        assert min(rates[what] for what in ("train", "encode", "decode")) > 0
    assert 0 < found["training, model02, bfloat16"]["mse"] < 0.2
    assert "passed" in found["tests, codec_rans"]["ended"]
    assert "TypeError" in found["codec"]["error"]
    text = (tmp_path / "device.md").read_text()
    assert "| model02 | bfloat16 | flax |" in text and "| codec | failed:" in text
    assert text in capsys.readouterr().out


@pytest.mark.long
def test_the_codec_by_jax_writes_what_its_machine_code_writes():
    found = json.loads(device.process("-c", device.CODEC, "3"))
    assert found["device"]["sha256"] == found["cpu"]["sha256"]

"""A decoder and a loss of one's own, as docs/architecture.md shows them."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Puts the page's blocks where their first lines say, then trains with them.
PROGRAM = """
import importlib, re, sys
page, folder = open("docs/architecture.md").read(), sys.argv[1]
blocks = re.findall("```python\\n(.*?)```", page, re.DOTALL)
piece = "# (\\\\S+)[.]py\\n(.*?)(?=\\n# |\\\\Z)"
pieces = re.findall(piece, "\\n".join(blocks), re.DOTALL)
order = ["models/registry", "models/decoders", "models/metrics"]  # as flags need them
for name, code in sorted(pieces, key=lambda piece: order.index(piece[0])):
    exec(code, vars(importlib.import_module("emnist_jax." + name.replace("/", "."))))
sys.argv = ["launch.py", "--decoder=model05", "--loss=huber", "--dataset=glyphs"]
sys.argv += ["--train_examples=60", "--test_examples=12", "--batch_size=8"]
sys.argv += ["--epochs=1", f"--workdir={folder}", "--run_name=own"]
import launch
launch.main()
"""


@pytest.mark.long
def test_the_page_s_decoder_and_loss_train(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "huber: train " in done.stdout and "mse 0." in done.stdout
    record = json.loads((tmp_path / "own" / "results.json").read_text())
    dense = (32 * 256 + 256) + (256 * 784 + 784)
    assert record["model"]["parameters"]["decoder"] == dense
    assert record["config"]["loss"] == "huber"

import json

import pytest

from emnist_jax.cli.errors import UserError
from experiments.benchmarks import cost


@pytest.mark.long
def test_the_benchmark_runs(tmp_path, capsys):
    output = tmp_path / "cost.json"
    cost.main(["--sizes=200", "--repeats=1", f"--output={output}"])
    record = json.loads(output.read_text())
    (row,) = record["sizes"]
    assert row["train_examples"] == 200
    assert 200 < row["peak_mebibytes"] < 8000
    assert record["first_step_cold_seconds"][0] > record["help_seconds"][0] > 0
    assert "200 images" in capsys.readouterr().out


@pytest.mark.long
def test_an_error_of_the_run_is_one(tmp_path):
    with pytest.raises(UserError, match="ended with status 2"):
        cost.measure_size(tmp_path, 10**6, ["--dataset=glyphs"])

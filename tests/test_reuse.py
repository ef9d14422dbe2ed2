import json

import pytest

from emnist_jax.cli.errors import UserError
from experiments import reuse


def test_steps_to_what_scratch_ends_with():
    rows = [
        {"start": "scratch", "seed": 0, "losses": [[10, 0.08], [20, 0.03], [30, 0.02]]},
        {"start": "fine-tuned", "seed": 0, "losses": [[10, 0.02], [20, 0.01]]},
        {"start": "encoder-frozen", "seed": 0, "losses": [[10, 0.05], [20, 0.035]]},
    ]
    cells = {cell["start"]: cell for cell in reuse.summarise(rows)}
    assert cells["scratch"]["steps_to_twice"] == 20
    assert cells["scratch"]["steps_to_same"] == 30
    assert cells["fine-tuned"]["steps_to_same"] == 10
    assert cells["encoder-frozen"]["steps_to_twice"] == 20
    assert cells["encoder-frozen"]["same_reached"] == 0
    assert cells["decoder-frozen"]["n"] == 0
    text = reuse.format_markdown(list(cells.values()))
    assert (
        "| encoder-frozen | 1 | 0.03500 | 20 (reached by 1 of 1) | - (reached" in text
    )


def test_the_command_runs_what_is_missing(tmp_path, run_path, here, capsys):
    call = [f"--workdir={tmp_path}", f"--init_from={run_path}", "--seeds=1"]
    call += ["--dataset=glyphs", "--train_examples=24", "--test_examples=8"]
    call += ["--batch_size=8", "--epochs=2"]
    reuse.main(call)
    table = capsys.readouterr().out
    cells = json.loads((tmp_path / "reuse.json").read_text())["cells"]
    assert [(cell["start"], cell["n"]) for cell in cells] == [
        (start, 1) for start in reuse.STARTS
    ]
    config = json.loads((tmp_path / "encoder-frozen-seed0" / "config.json").read_text())
    assert config["config"]["freeze"] == "encoder"
    assert config["config"]["schedule"] == "constant"
    assert config["config"]["decoder"] == "model03"  # as the run it starts from
    reuse.main([*call, "--noruns"])
    assert capsys.readouterr().out in table


def test_bad_calls(tmp_path):
    with pytest.raises(UserError, match="--init_from is missing"):
        reuse.main([f"--workdir={tmp_path}"])
    with pytest.raises(UserError, match="holds no finished run from scratch"):
        reuse.main([f"--workdir={tmp_path}", "--noruns"])

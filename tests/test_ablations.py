import json

import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.cli.flags import parse_config
from experiments import ablations


def row(variant, seed, loss, status="finished"):
    made = {"variant": variant, "seed": seed, "status": status}
    if status == "finished":
        made |= {"validation_loss": loss, "train_loss": loss, "dead_latents": seed}
    return made


def test_differences_are_paired_and_failures_counted():
    rows = [
        *(row(ablations.BASE, seed, 0.01 + 0.001 * seed) for seed in range(3)),
        *(row("muon-5e-3", seed, 0.009 + 0.001 * seed) for seed in range(3)),
        row("muon-1e-2", 0, None, status="dead"),
        *(row("muon-shift", seed, 0.008 + 0.001 * seed) for seed in range(3)),
        *(row("muon-shift-he", seed, 0.010 + 0.001 * seed) for seed in range(2)),
    ]
    base, better, deadly, shift, back = ablations.summarise(rows)
    assert base["validation_loss"] == pytest.approx(0.011)
    assert base["validation_loss_std"] == pytest.approx(0.001)
    assert "difference" not in base and base["dead_latents"] == 1
    # Seeds differ by as much as the variants, yet in pairs the gap is exact.
    assert better["difference"]["difference"] == pytest.approx(-0.001)
    assert better["difference"]["interval_95"][1] < -0.00099
    assert (deadly["n"], deadly["failed"], deadly["difference"]) == (0, 1, None)
    # What changes one thing is compared with what it changes.
    assert shift["reference"] == "muon-5e-3" and back["reference"] == "muon-shift"
    assert back["difference"]["difference"] == pytest.approx(0.002)
    assert back["difference"]["n"] == 2
    text = ablations.format_markdown([base, better, deadly])
    assert "| muon-5e-3 | 3 | 0 | 0.01000 ± 0.00100 |" in text and "not 0" in text


def test_references_stand_before_what_is_compared_with_them():
    names = list(ablations.VARIANTS)
    for place, name in enumerate(names[1:], start=1):
        assert ablations.reference(name) in names[:place]


def test_every_variant_is_a_config_of_its_own():
    configs = [
        parse_config(["launch.py", "--preset=robust", *flags], "")
        for flags in ablations.VARIANTS.values()
    ]
    assert len(set(configs)) == len(configs)


def test_the_command_runs_what_is_missing_and_reads_no_test_figure(
    tmp_path, here, capsys
):
    call = [f"--workdir={tmp_path}", "--variants=cosine-3e-3", "--seeds=1"]
    call += ["--dataset=glyphs", "--train_examples=40", "--test_examples=12"]
    ablations.main([*call, "--batch_size=8"])
    assert "[1/1] cosine-3e-3-seed0" in capsys.readouterr().out
    run = tmp_path / "cosine-3e-3-seed0"
    config = json.loads((run / "config.json").read_text())["config"]
    assert config == {**config, "preset": "robust", "learning_rate": 3e-3}
    table = (tmp_path / "ablations.json").read_text()
    record = json.loads((run / "results.json").read_text())
    record["test"] = None  # as if it had never been measured
    (run / "results.json").write_text(json.dumps(record))
    ablations.main([*call, "--batch_size=8"])
    assert "[1/1]" not in capsys.readouterr().out
    assert (tmp_path / "ablations.json").read_text() == table


def test_bad_calls(tmp_path):
    with pytest.raises(UserError, match="--variants=no: 'no' is none of cosine-3e-3"):
        ablations.main([f"--workdir={tmp_path}", "--variants=no"])
    with pytest.raises(UserError, match="--seeds=0: must be at least 1"):
        ablations.main([f"--workdir={tmp_path}", "--seeds=0"])
    with pytest.raises(UserError, match="holds no finished run of a variant"):
        ablations.main([f"--workdir={tmp_path}", "--noruns"])

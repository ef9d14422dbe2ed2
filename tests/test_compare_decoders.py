import json

import numpy as np
import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import results
from experiments import compare_decoders, comparison_figures


def rows(gap=0.001, n=4):
    generator = np.random.default_rng(0)
    made = []
    for seed in range(n):
        common = generator.normal(0, 0.002)
        for k, decoder in enumerate(("model01", "model02")):
            mse = 0.01 + common + k * gap + generator.normal(0, 1e-4)
            made.append(
                {
                    "decoder": decoder,
                    "preset": "robust",
                    "seed": seed,
                    "run": f"{decoder}-{seed}",
                    "status": "finished",
                    **dict.fromkeys(("psnr", "psnr_decoder_only"), 20.0),
                    **dict.fromkeys(("ssim", "ssim_decoder_only"), 0.9),
                    **dict.fromkeys(("mse", "mse_decoder_only"), mse),
                    **dict.fromkeys(("train_loss", "validation_loss"), mse),
                    "active_latents": 32 - k,
                }
            )
    return made


def test_pairs_show_what_single_runs_hide():
    made = rows()
    dead = {"decoder": "model02", "preset": "robust", "seed": 9, "status": "dead"}
    summary = compare_decoders.summarise([*made, dead])
    first, second = summary["cells"]
    assert (first["n"], second["collapsed"]) == (4, 1)
    assert first["mse_std"] > 0.001  # seeds differ by more than decoders
    (difference,) = summary["differences"]
    assert difference["within"] == "robust" and summary["dead_latents"] == {}
    low, high = difference["interval_95"]
    assert low < -0.001 < high < 0 and difference["n"] == 4
    gaps = [a["mse"] - b["mse"] for a, b in zip(made[::2], made[1::2], strict=True)]
    assert difference["difference"] == pytest.approx(np.mean(gaps))
    # Student's t with 3 degrees of freedom, from a table
    half = 3.1824 * np.std(gaps, ddof=1) / 2
    assert high - low == pytest.approx(2 * half, rel=1e-4)


def test_presets_are_paired_within_each_decoder():
    made = rows()
    better = [row | {"preset": "best", "mse": row["mse"] - 0.002} for row in made]
    differences = compare_decoders.summarise([*made, *better])["differences"]
    within = {(x["within"], *x["pair"]): x["difference"] for x in differences}
    assert len(within) == len(differences) == 4
    for decoder in ("model01", "model02"):
        assert within[decoder, "best", "robust"] == pytest.approx(-0.002)


def test_what_a_dead_latent_costs():
    made = rows(gap=0.005, n=8)
    generator = np.random.default_rng(1)
    for row in made:
        dead = int(generator.integers(0, 20))
        noise = generator.normal(0, 0.02)
        base = 0.004 if row["decoder"] == "model01" else 0.009
        row |= {"active_latents": 32 - dead, "mse": base * 1.05**dead * np.exp(noise)}
    found = compare_decoders.dead_latents_effect(made)
    low, high = found["interval_95"]
    assert low < 1.05 < high and high - low < 0.01 and found["share"] > 0.95
    # The same fit by ordinary least squares with a column for each decoder.
    second = [row["decoder"] == "model02" for row in made]
    dead = [-row["active_latents"] for row in made]
    columns = np.column_stack([dead, np.ones(len(made)), second])
    losses = np.log([row["mse"] for row in made])
    coefficients, (rest,), *_ = np.linalg.lstsq(columns, losses)
    assert found["factor"] == pytest.approx(np.exp(coefficients[0]))
    variance = rest / (16 - 3) * np.linalg.inv(columns.T @ columns)[0, 0]
    # Student's t with 13 degrees of freedom, from a table
    assert np.log(high / low) == pytest.approx(2 * 2.1604 * variance**0.5, rel=1e-4)
    text = compare_decoders.format_markdown(compare_decoders.summarise(made), False)
    assert "robust: each dead latent multiplies the MSE by 1.05" in text


def test_tables_and_figures(tmp_path):
    made = rows()
    text = compare_decoders.format_markdown(compare_decoders.summarise(made), True)
    assert "model01 - model02 | 4 | -0.00" in text and "not 0" in text
    assert "one run, ten test images" in text
    paths = comparison_figures.draw(tmp_path, made, compare_decoders.PUBLISHED)
    assert [p.name for p in paths] == ["comparison.png", "active_latents.png"]
    assert all(p.stat().st_size > 10_000 for p in paths)


def test_the_command_runs_what_is_missing(tmp_path, capsys, here):
    call = [f"--workdir={tmp_path}", "--decoders=model03", "--presets=best"]
    call += ["--seeds=1", "--dataset=glyphs", "--train_examples=40"]
    call += ["--test_examples=12", "--batch_size=8"]
    compare_decoders.main(call)
    assert "[1/1] model03-best-seed0" in capsys.readouterr().out
    summary = json.loads((tmp_path / "comparison.json").read_text())
    assert summary["cells"][0]["n"] == 1
    assert (tmp_path / "comparison.png").exists()
    assert (tmp_path / "reconstructions.png").stat().st_size > 10_000
    compare_decoders.main(call)
    assert "[1/1]" not in capsys.readouterr().out


def test_runs_that_cannot_be_compared(tmp_path):
    record = {"schema": results.SCHEMA, "status": "dead", "test": None}
    record |= {"dataset": None, "timing": None}
    config = {"decoder": "model01", "preset": "best", "seed": 0, "dataset": "glyphs"}
    config |= {"epochs": 1, "train_examples": None, "batch_size": 128}
    for name, change in {"a": {}, "b": {"seed": 1}, "c": {"seed": 1}}.items():
        (tmp_path / name).mkdir()
        text = json.dumps(record | {"name": name, "config": config | change})
        (tmp_path / name / "results.json").write_text(text)
    with pytest.raises(UserError, match="b and c have the same decoder"):
        compare_decoders.collect(tmp_path)
    text = json.dumps(record | {"name": "c", "config": config | {"epochs": 2}})
    (tmp_path / "c" / "results.json").write_text(text)
    with pytest.raises(UserError, match="a has epochs 1, c 2; runs of different"):
        compare_decoders.collect(tmp_path)


def test_bad_calls(tmp_path):
    for argument, message in (
        ("--decoders=model09", "--decoders=model09: 'model09' is none of model01"),
        ("--epochs=0", "--epochs=0: must be at least 1"),
        ("--noruns", "holds no run"),
    ):
        with pytest.raises(UserError, match=message):
            compare_decoders.main([f"--workdir={tmp_path}", argument])
    assert not any(tmp_path.iterdir())

"""The console command, what it says meanwhile, and the table of runs."""

import csv
import io
import json
import shutil
import sys

import pytest

from emnist_jax import __main__ as console
from emnist_jax import __version__
from emnist_jax.cli.console import bar, doing
from emnist_jax.cli.errors import UserError
from emnist_jax.evaluate import format_quality
from emnist_jax.runs import compare


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["emnist-jax", *arguments])
    return console._dispatch()


@pytest.mark.parametrize("command", [c for c in console.COMMANDS if c != "train"])
def test_every_command_has_a_help_that_names_it(command, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, command, "--help")
    assert end.value.code == 0
    assert f"usage: emnist-jax {command}" in capsys.readouterr().out


def test_version_help_and_unknown_commands(monkeypatch, capsys):
    call(monkeypatch, "--version")
    assert capsys.readouterr().out == f"emnist_jax {__version__}\n"
    call(monkeypatch)
    shown = capsys.readouterr().out
    assert all(name in shown for name in console.COMMANDS)
    with pytest.raises(UserError, match="nope: no such command; there are train"):
        call(monkeypatch, "nope")


SMALL = ("evaluate", "latents", "export", "results", "import")
CODEC = ("", " compress", " decompress", " info", " verify", " join", " train")


@pytest.mark.parametrize("columns", [50, 80, 120])
@pytest.mark.parametrize("command", ["train", *SMALL, *(f"codec{c}" for c in CODEC)])
def test_help_wraps_at_words_and_shows_defaults(command, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        call(monkeypatch, *command.split(), "--help")
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if "emnist-jax" not in line]
    assert all(len(line) <= columns or len(line.split()) == 1 for line in lines)
    assert "None" not in shown and "(default" not in shown
    if command == "train":
        for text in ("emnist/balanced,", "[default: 0.005; published: 0.001]"):
            assert text.split()[0] in shown.split()
        flags = shown.split("\n  --")[1:]
        assert all(flag.count("[default:") == 1 for flag in flags)


class Terminal(io.StringIO):
    """Standard error of somebody who looks at it."""

    def isatty(self):
        return True


def test_the_bar_says_what_goes_on(monkeypatch):
    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", seen)
    with bar(10, "epoch 1/2", "images") as shown:
        with doing("compiling"):
            assert "compiling:   0%" in seen.getvalue()
        assert shown.desc == "epoch 1/2"
    seen.truncate(0)
    with doing("timing"), doing("compiling"):
        assert "timing ..." in seen.getvalue()
        assert "compiling ..." in seen.getvalue()
    assert seen.getvalue().endswith("\r")  # nothing stays


def test_nothing_is_said_where_nobody_looks(capsys):
    with doing("compiling"), bar(10, "epoch 1/2", "images"), doing("compiling"):
        pass
    assert capsys.readouterr().err == ""


def test_the_table_of_a_run_has_what_a_reader_needs():
    quality = {"mse": 0.00284, "psnr": 26.511, "ssim": 0.98171}
    shown = format_quality({"autoencoder": quality, "active_latents": 30}, 32)
    words = [line.split() for line in shown.splitlines()]
    assert [line[-1] for line in words] == ["0.00284", "dB", "0.9817", "32"]
    assert words[-1] == ["dead", "latents", "2", "of", "32"]


@pytest.fixture
def two_runs(tmp_path, run_path):
    """The finished run twice, the second with another seed, latents and figures."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(run_path / "results.json", tmp_path / name)
    path = tmp_path / "b" / "results.json"
    record = json.loads(path.read_text())
    record["config"] |= {"seed": 7, "latent_dim": 40}
    record["test"]["autoencoder"]["mse"] /= 2
    path.write_text(json.dumps(record))
    return tmp_path


def test_runs_are_compared_the_best_first(two_runs, capsys):
    compare.main([str(two_runs)])
    head, best, other = capsys.readouterr().out.splitlines()
    columns = head.split()
    assert columns[:2] == ["run", "mse"] and columns[-2:] == ["latent_dim", "seed"]
    assert best.split()[0].endswith("b") and other.split()[0].endswith("a")
    compare.main([str(two_runs / "a"), str(two_runs / "b"), "--csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["seed"] for row in rows] == ["7", "0"]
    assert 2 * float(rows[0]["mse"]) == float(rows[1]["mse"])


def test_a_setting_is_plotted(two_runs, capsys):
    out = two_runs / "plot.png"
    compare.main([str(two_runs), "--plot=latent_dim", f"--out={out}"])
    assert out.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="differ: latent_dim, seed"):
        compare.main([str(two_runs), "--plot=decoder", f"--out={out}"])
    with pytest.raises(UserError, match="neither a finished run nor a folder of such"):
        compare.main([str(two_runs / "c")])


@pytest.mark.parametrize(
    "wrong",
    [
        {"config": "text", "training": [1], "test": {"autoencoder": 7}},
        {"config": {"seed": ["x"]}, "test": {"autoencoder": {"mse": "a"}}},
        {"config": None, "training": {"epochs": {}}, "test": None},
    ],
)
def test_results_of_any_kind_are_rows(wrong, two_runs, capsys):
    path = two_runs / "b" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    compare.main([str(two_runs)])
    head, known, other = capsys.readouterr().out.splitlines()
    assert known.split()[0].endswith("a") and other.split()[0].endswith("b")

import dataclasses
import math
import subprocess
import sys

import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.cli.flags import parse_config
from emnist_jax.config import (
    PRESETS,
    Config,
    make_config,
    shaping_differences,
    stored_config,
)
from emnist_jax.config.setting import base_type

FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def parse(*arguments):
    return parse_config(["launch.py", *arguments], usage="usage")


def test_a_flag_overrides_its_preset():
    config = parse("--preset=published", "--schedule=cosine")
    assert (config.latent_activation, config.schedule) == ("relu", "cosine")
    assert parse().latent_activation == "linear"


def test_every_preset_is_a_config():
    for name, settings in PRESETS.items():
        config = make_config(preset=name)
        assert {k: getattr(config, k) for k in settings} == settings


def test_presets_cover_what_the_published_study_sets():
    config = make_config(preset="published")
    assert dataclasses.asdict(config) | {
        "epochs": 15,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "initialization": "glorot_uniform",
        "optimizer": "keras_adam",
        "early_stopping_patience": 5,
        "output_bias": "zero",
        "schedule": "plateau",
        "shift_pixels": 0,
    } == dataclasses.asdict(config)


numeric = [f for f in FIELDS.values() if f.metadata["low"] is not None]


@pytest.mark.parametrize("field", numeric, ids=lambda f: f.name)
def test_numbers_out_of_range_name_their_flag(field):
    low, high = field.metadata["low"], field.metadata["high"]
    for value in [low - 1] + ([high + 1] if high is not None else []):
        with pytest.raises(UserError, match=f"--{field.name}={value}"):
            make_config(**{field.name: value})
    with pytest.raises(UserError, match=f"--{field.name}=nan"):
        make_config(**{field.name: math.nan})
    whole = base_type(field) is int
    values = ["9" * 30, "word", "1,5", "nan", "inf", "-inf", "5\n6"]
    for value in values + whole * ["1.5", "1e400", "9" * 5000]:
        shown = str(float(value)) if value == "9" * 30 and not whole else value
        right = f"must be a {'whole ' if whole else ''}number"
        expected = " ".join(f"--{field.name}={shown}: {right}".split())
        with pytest.raises(UserError) as error:
            parse(f"--{field.name}={value}")
        assert expected in " ".join(str(error.value).split())
    with pytest.raises(UserError, match=f"--{field.name}=: must not be empty"):
        parse(f"--{field.name}=")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--decoder=model05"], "--decoder=model05: must be one of model01, model02"),
        (["--decodr=model01"], "Did you mean: decoder"),
        (["--epochs=many"], "--epochs=many: must be a whole number"),
        (
            ["--learning_rate=nan"],
            "--learning_rate=nan: must be a number from 1e-08 to",
        ),
        (
            ["--learning_rate=inf"],
            "--learning_rate=inf: must be a number from 1e-08 to",
        ),
        (["--dataset=cifar"], "--dataset=cifar: must be one of auto, glyphs"),
        (["--run_name=../x"], "--run_name='../x': must be a plain folder name"),
        (["model03"], "argument 'model03' is not a flag"),
        (["--preset=fast"], "--preset=fast: must be one of best, robust, published"),
    ],
)
def test_bad_flags_are_one_clear_line(arguments, message):
    with pytest.raises(UserError) as error:
        parse(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_setting_in_python():
    with pytest.raises(UserError, match="unknown setting 'epoch'"):
        make_config(epoch=3)


def test_differences_leave_out_what_does_not_shape_the_result():
    ours = dataclasses.asdict(make_config())
    theirs = ours | {"workdir": "elsewhere", "epochs": 3, "gone": 1}
    assert shaping_differences(ours, theirs) == {"epochs": (15, 3), "gone": (None, 1)}


def test_run_name():
    config = make_config(dataset="emnist/balanced", preset="published", seed=7)
    assert config.name == "emnist-balanced-model01-published-seed7"
    assert make_config(run_name="mine").name == "mine"


def test_help_names_every_flag_and_starts_no_jax():
    code = (
        "import sys, runpy; sys.argv = ['launch.py', '--help']\n"
        "try: runpy.run_path('launch.py', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'jax' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for name, field in FIELDS.items():
        assert f"--{name}" in result.stdout or f"--[no]{name}" in result.stdout
        first_words = " ".join(field.metadata["help"].split()[:2])
        assert first_words in result.stdout


def test_a_run_s_folder_tells_what_is_unusual():
    assert make_config().name == "auto-model01-best-seed0"
    config = make_config(dataset="glyphs", latent_dim=64, learning_rate=1e-3)
    assert config.name == "glyphs-model01-best-seed0-latent_dim64-learning_rate0.001"
    usual = make_config(preset="published", learning_rate=1e-3, workdir="elsewhere")
    assert usual.name == "auto-model01-published-seed0"
    assert make_config(latent_dim=64, run_name="mine").name == "mine"
    many = {"train_examples": 2000, "test_examples": 1000, "validation_fraction": 0.25}
    names = {make_config(**many, batch_size=8, epochs=e).name for e in (11111, 22222)}
    assert len(names) == 2 and max(map(len, names)) == 100
    for name in names:
        assert make_config(run_name=name).name == name


def test_settings_of_earlier_versions():
    ours = dataclasses.asdict(make_config())
    old = {k: v for k, v in ours.items() if k != "loss"}
    old |= {"weight_averaging": 0.0, "weight_decay": 0.0}
    assert shaping_differences(ours, old) == {}
    assert stored_config(old) == make_config()
    differing = shaping_differences(ours, old | {"weight_decay": 0.1})
    assert differing == {"weight_decay": (0.0, 0.1)}

import pytest

from emnist_jax import latents
from emnist_jax.cli.arguments import Parser, comma_separated, count
from emnist_jax.cli.errors import UserError
from emnist_jax.runs import import_keras


@pytest.fixture
def parser():
    made = Parser("What it does.\n\n  its call\n")
    made.add_argument("--run_name", required=True, help="100% of it")
    made.add_argument("--seed", type=int, default=3, help="of all")
    made.add_argument("--rate", type=float, help="of learning")
    made.add_argument("--images", type=count, help="the first so many")
    kinds = comma_separated(known=("a", "b"))
    made.add_argument("--kinds", type=kinds, default=["a", "b"], help="which")
    made.add_argument("--sizes", type=comma_separated(int), help="each")
    made.add_argument("--quick", action="store_true", help="is less")
    made.add_argument("place", nargs="?", help="where")
    return made


def test_both_forms(parser):
    call = ["--run_name", "x", "--seed", "-1", "--rate=-1e-3", "--kinds=b", "here"]
    found = vars(parser.parse_args([*call, "--sizes=3,4", "--images=1"]))
    assert found == {
        **{"run_name": "x", "seed": -1, "rate": -1e-3, "kinds": ["b"], "quick": False},
        **{"place": "here", "sizes": [3, 4], "images": 1},
    }
    found = parser.parse_args(["--run_name=a", "--run_name=a b=c"])
    assert (found.run_name, found.seed, found.kinds) == ("a b=c", 3, ["a", "b"])
    assert found.place is None and found.rate is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("", "the following arguments are required: --run_name (see --help)"),
        ("--run_name=", "--run_name=: must not be empty"),
        ("--run_name=x ", "place=: must not be empty"),
        ("--run_name=\udcff", "--run_name=\udcff: must be UTF-8"),
        ("--run_name", "argument --run_name: expected one argument (see --help)"),
        ("--run_name=x --run=y", "unrecognized arguments: --run=y (see --help)"),
        ("--run_name=x a b", "unrecognized arguments: b (see --help)"),
        ("--seed=1.5", "--seed=1.5: must be a whole number"),
        (f"--seed={'9' * 5000}", "9: must be a whole number"),
        ("--seed=", "--seed=: must not be empty"),
        ("--rate=nan", "--rate=nan: must be a number"),
        ("--rate=1,5", "--rate=1,5: must be a number"),
        ("--images=0", "--images=0: must be at least 1"),
        ("--images=x", "--images=x: must be a whole number"),
        ("--kinds=a,c", "--kinds=a,c: 'c' is none of a, b"),
        ("--sizes=1,,2", "--sizes=1,,2: must be whole numbers, separated by commas"),
        ("--quick=no", "argument --quick: ignored explicit argument 'no' (see --help)"),
    ],
)
def test_errors_say_what_would_be_right(call, message, parser):
    with pytest.raises(UserError) as error:
        parser.parse_args(call.split(" ") if call else [])
    assert str(error.value).endswith(message)


def test_commands_of_a_parser_have_the_same_errors():
    parser = Parser(None)
    one = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("one")
    one.add_argument("--seed", type=int, default=0)
    with pytest.raises(UserError, match="--seed=x: must be a whole number"):
        parser.parse_args(["one", "--seed=x"])
    with pytest.raises(UserError, match="COMMAND"):
        parser.parse_args(["two"])


def test_help_shows_defaults(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = parser.format_help()
    assert "What it does.\n\n  its call\n" in shown and "100% of it\n" in shown
    assert "of all [default: 3]" in shown and "which [default: a,b]" in shown
    assert "None" not in shown and "False" not in shown
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize("module", [latents, import_keras])
def test_without_docstrings(module, monkeypatch, capsys):
    """`python -OO` leaves None of them; test_environment.py runs commands so."""
    monkeypatch.setattr(module, "__doc__", None)
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    assert "--out" in capsys.readouterr().out

"""The rooms of the package, and what may import what (docs/architecture.md)."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "emnist_jax"

# Room -> rooms that it may import, itself aside. Files of the package's top level are
# rooms of their own.
MAY_IMPORT = {
    "cli": {"config", "cpu"},  # config: the flags; cpu: before a process starts
    "storage": {"cli"},
    "cpu": {"storage", "cli"},
    "models": {"cpu"},
    "devices": {"cpu", "cli"},
    "data": {"storage", "cli"},
    "training": {"devices", "storage", "cli"},
    "config": {"cli", "storage", "models", "data", "devices", "training"},
    "runs": {"config", "models", "devices", "storage", "cli", "cpu"},
    "latents": {"runs", "data", "devices", "storage", "cli"},
    "codec": {"cpu", "devices", "storage", "cli", "data", "training"},
    "explore": {"runs", "config", "codec", "models", "storage", "cli"},
    "bulk": {"latents", "codec", "data", "storage", "cpu", "cli"},
}
EVERYTHING = {"__init__", "train", "evaluate"}
LEAVES = {"train", "evaluate", "latents"}  # nobody but commands imports them


def room_of(module):
    """The room of a dotted name of ours; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imports_of(path):
    """Modules of ours that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("emnist_jax"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "emnist_jax":
                yield from (f"emnist_jax.{a.name}" for a in node.names)
            elif node.module and node.module.startswith("emnist_jax."):
                yield node.module


def rooms():
    return sorted(
        {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in python_files()}
    )


def python_files():
    return [p for p in PACKAGE.rglob("*.py") if p.name != "__main__.py"]


def test_every_room_is_known():
    assert set(rooms()) == MAY_IMPORT.keys() | EVERYTHING
    assert len(rooms()) <= 16  # and __main__


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_what_it_may(room):
    found = {}
    for path in python_files():
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") != room:
            continue
        for module in imports_of(path):
            found.setdefault(room_of(module), path.name)
    known = {*rooms()} - {"__init__"}
    wrong = (found.keys() & known) - MAY_IMPORT[room] - {room}
    assert not wrong, {name: found[name] for name in wrong}


def test_the_light_parts_stay_light():
    """Reading a file loads no optimiser and no trainable model; help loads no JAX."""
    check = "import sys, {}; assert not {{*sys.modules}} & {{*{!r}.split()}}"
    for module, heavy in (
        ("emnist_jax.codec.__main__", "jax optax orbax emnist_jax.models tensorflow"),
        ("emnist_jax.config", "jax flax numpy"),
        ("emnist_jax.cli.errors", "jax flax numpy"),
        ("emnist_jax.bulk.engine", "jax flax ray fsspec"),  # actors set NPROC first
        ("emnist_jax.cpu", "jax llvmlite"),
        ("emnist_jax.models.layers", "optax orbax"),
    ):
        command = [sys.executable, "-c", check.format(module, heavy)]
        subprocess.run(command, check=True, cwd=ROOT)


def test_experiments_and_tests_do_not_import_each_other():
    for folder, other in (("experiments", "tests"), ("tests", "experiments")):
        for path in (ROOT / folder).rglob("*.py"):
            if folder == "tests" and "experiments" in path.read_text():
                continue  # tests of the studies
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "module", None) or ""
                assert name.split(".")[0] != other, path


# Each writes one kernel, whose loops are read as one piece.
KERNELS = {
    "matrix_product",
    "strided_gradient",
    "winograd",
    "winograd_gradient",
    "emit",
}


def test_files_functions_and_signatures_are_short():
    long = []
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        text = path.read_text()
        if text.count("\n") > 300:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef):
                continue
            if path.parent.name == "cpu" and node.name in KERNELS:
                continue
            lines = node.end_lineno - node.lineno + 1
            a = node.args
            count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs)
            count -= bool(a.args) and a.args[0].arg in ("self", "cls")
            place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            if lines > 60:
                long.append(f"{place}: {lines} lines")
            if count > 7:
                long.append(f"{place}: {count} arguments")
    assert not long, "\n".join(long)

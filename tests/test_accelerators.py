"""What compilers for TPU and GPU make of our programs, on a machine with neither."""

import functools
import math
import os
import re
import subprocess
import sys

import jax
import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.models.registry import DECODERS
from emnist_jax.storage import files
from experiments import accelerator_targets, accelerators
from experiments.accelerator_programs import PROGRAMS
from experiments.accelerator_targets import TARGETS, devices

# Code that compilers bring along. Ours, and calls of the host, have other names.
KNOWN_CALLS = (
    r"AllocateBuffer|AssumeGatherIndicesInBound|ConcatBitcast|"
    r"__cudnn\$\w+|__cublas\$\w+|__triton\w*"
)
pytestmark = pytest.mark.timeout(900)
SLOW = pytest.mark.skipif(
    "TEST_SLOW_COMPILES" not in os.environ,
    reason="takes two to four minutes; TEST_SLOW_COMPILES=1 runs it",
)
CODEC = [("h100", part) for part in ("values", "decode", "encode")]


def missing(target):
    """What to install for a target, if its compiler is not there."""
    try:
        accelerator_targets.check(target)
    except UserError as error:
        return str(error)


@functools.lru_cache(maxsize=2)  # tests of one program follow each other
def compiled(target, name, count):
    """A program, what it is lowered to, and what it is compiled to."""
    if missing(target):
        pytest.skip(missing(target))
    program = PROGRAMS[name](count)
    lowered = program.lower(devices(target, count))
    return program, lowered.as_text(), lowered.compile()


def check_runs_alone(target, text, made):
    """No call of the host nor kernel of ours, no float64, fits into the memory."""
    found = made.as_text()
    for word in ("infeed", "outfeed", "send(", "recv(", "callback", "S(5)"):
        assert word not in found, word
    for call in re.findall(r'custom_call_target="([^"]*)"', found):
        assert re.fullmatch(KNOWN_CALLS, call), call
    assert "@emnist_jax" not in text and "f64" not in text and "f64[" not in found
    memory = made.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes
    needed += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    assert memory.host_temp_size_in_bytes == 0
    assert 0 < needed < TARGETS[target].memory


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "name", "count"),
    [
        pytest.param("v5e", "train float32", 4, marks=SLOW),
        ("h100", "train bfloat16", 2),
        ("h100", "epoch float32", 2),
    ],
)
def test_training(target, name, count):
    program, text, made = compiled(target, name, count)
    check_runs_alone(target, text, made)
    state = program.arguments[0]
    lines = accelerators.ALL_REDUCE.findall(made.as_text())
    everyone = ",".join(map(str, range(count)))
    for line in lines:
        assert f"replica_groups={{{{{everyone}}}}}" in line, line
    results = " ".join(re.split(r" all-reduce", line)[0] for line in lines)
    shapes = [
        x.split(",") if x else [] for x in re.findall(r"f32\[([\d,]*)\]", results)
    ]
    reduced = sum(math.prod(map(int, sides)) for sides in shapes)
    # Gradients, the loss, and the largest and the smallest output; nothing twice.
    assert reduced == sum(x.size for x in jax.tree.leaves(state.params)) + 3
    donated = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert made.memory_analysis().alias_size_in_bytes > donated - 8  # a counter
    assert ("while" in made.as_text()) == (program.steps > 1)
    products = "bf16" if "bfloat16" in name else "f32"
    assert f"x{products}>" in text.split("stablehlo.convolution")[1].splitlines()[0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "name"),
    [("v6e", "encode"), ("h100", "evaluate")]
    + [("h100", f"decode {decoder}") for decoder in DECODERS],
)
def test_outside_of_training(target, name):
    _, text, made = compiled(target, name, 1)
    check_runs_alone(target, text, made)


@pytest.mark.long
@pytest.mark.parametrize(("target", "part"), [("v5e", "fine"), *CODEC])
def test_products_of_the_codec_are_exact(target, part):
    """Operands of 8 bits, float32 sums; what has more bits asks for all of them."""
    _, text, made = compiled(target, f"codec {part}", 1)
    check_runs_alone(target, text, made)
    products = re.findall(r"stablehlo\.dot_general .*", text)
    assert products and "stablehlo.convolution" not in text
    precise = [line for line in products if "precision = [HIGHEST, HIGHEST]" in line]
    assert len(precise) == (2 if part == "values" else 0)
    for line in products:
        assert re.search(
            r"\(tensor<\w*xf32>, tensor<\w*xf32>\) -> tensor<\w*xf32>", line
        )
        assert "algorithm" not in line
    kept = re.findall(r" = \(?(\w+)\[[^=]* (?:dot|convolution)\(.*", made.as_text())
    assert set(kept) <= {"f32"}  # sums


def test_a_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(accelerator_targets, "_found", lambda module: False)
    with pytest.raises(
        UserError, match=r"v5e: .* pip install 'jax\[tpu\]==.* 'nvidia-"
    ):
        devices("v5e", 1)


@pytest.mark.long
def test_the_command(tmp_path):
    if missing("h100"):
        pytest.skip(missing("h100"))
    command = [sys.executable, "-m", "experiments.accelerators", "--targets=h100"]
    command += ["--programs=codec fine", f"--out={tmp_path}/a.json"]
    printed = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert "compiling" in printed[0] and "compiling" not in printed[1]
    (row,) = files.read_json(tmp_path / "a.json")["rows"].values()
    assert 1e9 < row["flops"] < 1e10 and row["moved_bytes"] > 65_536 * 4
    text = (tmp_path / "a.md").read_text()
    line = f"| codec fine | 1 x h100 | {row['flops'] / 1e9:.1f} |"
    assert line in text and "no measurements" in text
    assert all(text in one for one in printed)

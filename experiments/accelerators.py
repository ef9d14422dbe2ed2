"""What users run, compiled for TPU and GPU without one: bounds, and no measurement.

  python -m experiments.accelerators --out=experiments/results/accelerators.json

Compiles with the makers' own compilers, which need no device and no driver; `--wheels`
says what to install. What a program costs at least follows from its operations, counted
by XLA, and from the bytes that it takes and returns, over the peaks that the makers
publish: a step faster than this cannot be, a slower one can. The command goes on where
it stopped; on two busy cores a program takes from some seconds to minutes.
"""

import re
import time
from collections.abc import Sequence

import jax

from emnist_jax.cli.arguments import comma_separated
from emnist_jax.cli.command import run_command
from emnist_jax.storage import files, results
from experiments import study, tables
from experiments.accelerator_programs import PROGRAMS, flops
from experiments.accelerator_targets import TARGETS, devices, wheels

CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')  # TPU's compiler writes them
ALL_REDUCE = re.compile(r" = .*\ball-reduce(?:-start)?\(.*")  # lines of XLA's text
SEVERAL = ("train float32", "train bfloat16", "epoch float32")  # also on more devices


def measure(target: str, name: str, count: int) -> dict:
    """A row of the table.

    Args:
      target: of `TARGETS`.
      name: of `PROGRAMS`.
      count: devices.

    Raises:
      UserError: the compiler is not installed.
    """
    program, limits = PROGRAMS[name](count), TARGETS[target]
    lowered = program.lower(devices(target, count))
    started = time.monotonic(), time.process_time()
    compiled = lowered.compile()
    spent = time.monotonic() - started[0], time.process_time() - started[1]
    memory, text = compiled.memory_analysis(), compiled.as_text()
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
    work = flops(name, count)
    compute, traffic = work / limits.peak[program.dtype], moved / limits.bandwidth
    seconds = max(compute, traffic)
    return {
        "program": name,
        "target": target,
        "devices": count,
        "flops": work,
        "moved_bytes": moved,
        "accessed_bytes": (compiled.cost_analysis() or {}).get("bytes accessed"),
        "estimated_cycles": program.steps * sum(map(int, CYCLES.findall(text))) or None,
        "temporary_bytes": memory.temp_size_in_bytes,
        "least_seconds": seconds,
        "bound_by": "products" if compute > traffic else "memory",
        "units": "pixels" if name.startswith("codec") else "images",
        "most_per_second": program.count / seconds,
        "all_reduces": len(ALL_REDUCE.findall(text)),
        "compile_seconds": spent[0],
        "compile_processor_seconds": spent[1],
    }


def format_markdown(rows: Sequence[dict]) -> str:
    """The rows as Markdown."""
    cells = [
        (
            row["program"],
            f"{row['devices']} x {row['target']}",
            f"{row['flops'] / 1e9:,.1f}",
            f"{row['moved_bytes'] / 1e6:,.1f}",
            f"{accessed / 1e6:,.0f}" if (accessed := row["accessed_bytes"]) else "-",
            f"{row['temporary_bytes'] / 1e6:,.0f}",
            f"{cycles / 1e6:,.2f}" if (cycles := row["estimated_cycles"]) else "-",
            row["all_reduces"],
            f"{1e3 * row['least_seconds']:,.3f} ({row['bound_by']})",
            f"{row['most_per_second']:,.3g} {row['units']}",
        )
        for row in rows
    ]
    headings = (
        "program | devices | GFLOP | MB in and out | MB accessed | MB of temporaries | "
        "million cycles | all-reduces | ms at least | a second at most"
    )
    return (
        "Bounds by compilation, no measurements: nothing here has run on such a "
        "device. Figures are of one device and call, the last column of all devices. "
        "MB accessed, mostly inside the chip, and cycles are the compiler's own "
        "estimates, where it has some.\n\n" + tables.markdown(headings, cells)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add = parser.add_argument
    for name, known in (("targets", TARGETS), ("programs", PROGRAMS)):
        kind = comma_separated(known=known)
        add(f"--{name}", type=kind, default=list(known), help="comma-separated")
    add("--out", default="accelerators.json", help="a .json file; a .md goes along")
    add("--wheels", action="store_true", help="only say what to install")
    flags = parser.parse_args(argv)
    if flags.wheels:
        print(*wheels())
        return
    out = study.check_output(flags.out)
    jax.config.update("jax_platforms", "cpu")  # the plugins shall not look for devices
    jax.config.update("jax_enable_compilation_cache", False)  # it loads on devices only
    about = {"study": "accelerators", "environment": results.environment()}
    record = study.resume(out, about, "rows")
    for target in flags.targets:
        for name in flags.programs:
            for count in (1, TARGETS[target].most) if name in SEVERAL else (1,):
                key = f"{target}, {count}, {name}"
                if key not in record["rows"]:
                    print(f"compiling {name} for {count} x {target}", flush=True)
                    record["rows"][key] = measure(target, name, count)
                    files.write_json(out, record)
    text = format_markdown(record["rows"].values())
    study.write(out.with_suffix(""), record, text)


if __name__ == "__main__":
    run_command(main)

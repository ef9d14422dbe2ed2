"""What the studies share: their folder, their files, their tables."""

import pathlib
import subprocess
import sys
import types

import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files
from experiments import (
    ablations,
    claims,
    codec_compare,
    codec_trade_map,
    compare_decoders,
    denoising,
    equal_bytes,
    held_latents,
    probes,
    reuse,
    study,
    tables,
)

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"


def test_a_folder_keeps_to_one_study_and_its_settings(tmp_path):
    def claim(name, **values):
        flags = types.SimpleNamespace(batch_size=8, train_examples=None, **values)
        return study.claim_folder(tmp_path, name, flags, "steps")

    assert study.load_settings(tmp_path) == {}
    made = claim("claims", epochs=3, steps=9, data_dir="here")
    assert made["epochs"] == 3 and "data_dir" not in made
    assert claim("claims", epochs=3, steps=9, data_dir="there") == made
    assert study.load_settings(tmp_path) == made
    with pytest.raises(UserError, match="was made with steps 9, not 8"):
        claim("claims", epochs=3, steps=8)
    with pytest.raises(UserError, match="was made with study 'claims', not 'reuse'"):
        claim("reuse", epochs=3, steps=9)
    with pytest.raises(UserError, match="was made with epochs 3, not None"):
        claim("claims", steps=9)


def test_a_file_keeps_to_what_it_is_about(tmp_path):
    path = tmp_path / "speed.json"
    assert study.resume(path, {"images": 8}, "models") == {"images": 8, "models": {}}
    files.write_json(path, {"images": 8, "models": {"fast": 1}})
    assert study.resume(path, {"images": 8}, "models")["models"] == {"fast": 1}
    with pytest.raises(UserError, match="--out=.*was made with images 8, not 9"):
        study.resume(path, {"images": 9}, "models")
    with pytest.raises(UserError, match="was made with rows None"):
        study.resume(path, {"images": 8}, "rows")


def test_flags_that_every_run_gets():
    parser = study.StudyParser("What it does.")
    parser.add_runs(seeds=None, epochs=2)
    flags = parser.parse_args(["--workdir=w", "--test_examples=9", "--data_dir=d"])
    assert study.run_settings(flags) == [
        *("--epochs=2", "--test_examples=9", "--batch_size=128"),
        *("--dataset=emnist/balanced", "--data_dir=d"),
    ]


def test_a_missing_package_is_named():
    with pytest.raises(
        UserError, match=r"needs nosuch: pip install -e '\.\[studies\]'"
    ):
        study.StudyParser("", "nosuch")


def test_table():
    name = tables.plain("a|b*c*\n`d` _e_ f_g <h>")
    assert name == r"a\|b\*c\* \`d\` \_e\_ f_g \<h>"
    assert tables.markdown("x | y", [(name, ""), (1, "2 ± 3")]) == (
        f"| x | y |\n|---|---|\n| {name} | |\n| 1 | 2 ± 3 |\n"
    )


@pytest.mark.parametrize(
    "module",
    [ablations, claims, compare_decoders, denoising, held_latents, reuse],
)
def test_committed_figures_give_the_committed_tables(module):
    name, more = module.__name__.rpartition(".")[2], ()
    if module is compare_decoders:
        name, more = "comparison", (True,)  # with the published figures
    (path,) = (p for p in RESULTS.rglob(f"{name}.json") if p.parent.name != "long")
    summary = module.summarise(files.read_json(path)["rows"])
    text = module.format_markdown(summary, *more)
    assert text == path.with_suffix(".md").read_text()


def test_committed_rows_give_the_committed_tables():
    folder = RESULTS / "study"
    for module, path in (
        (equal_bytes, folder / "equal_bytes" / "equal_bytes.json"),
        (probes, folder / "probes" / "probes.json"),
    ):
        text = module.format_markdown(files.read_json(path)["rows"])
        assert text == path.with_suffix(".md").read_text()
    path = RESULTS / "codec" / "trade_map.json"
    record = files.read_json(path)
    title = record["source"]["title"]
    text = codec_trade_map.format_markdown(record["rows"], 640, title)
    assert text == path.with_suffix(".md").read_text()
    path = RESULTS / "codec" / "compare.json"
    text = codec_compare.format_markdown(files.read_json(path))
    assert text.replace(" ", "") == path.with_suffix(".md").read_text().replace(" ", "")


def test_a_study_is_a_command_of_the_checkout():
    """One call as users make it, from the root."""
    command = [sys.executable, "-m", "experiments.report"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the following arguments are required: --wor")


def test_a_record_and_its_tables_are_checked_before_any_work(tmp_path):
    out, read = tmp_path / "a.json", tmp_path / "read.json"
    read.write_text("{}")
    assert study.check_output(str(out), str(read)) == out
    with pytest.raises(UserError, match=r"^--out=.*a\.txt: must end in \.json"):
        study.check_output(str(tmp_path / "a.txt"))
    with pytest.raises(UserError, match="^--to=.*read"):
        study.check_output(str(read), str(read), flag="--to=")
    out.with_suffix(".md").mkdir()
    with pytest.raises(UserError, match=r"a\.md"):
        study.check_output(str(out))

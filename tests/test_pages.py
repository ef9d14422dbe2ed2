"""Every block of README and docs that can be executed is, page by page."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (.*?) -->\n)?^```(bash|python)\n(.*?)^```$", re.M | re.S)
FEW = "--train_examples=40 --test_examples=6 --epochs=1 --batch_size=20"
# A user's `python`, but that trainings are as short as can be.
PYTHON = f"""#!/bin/bash
[ "$1" = launch.py ] && set -- "$@" {FEW}
exec {sys.executable} "$@"
"""


def blocks(page):
    """(reason not to run it or None, language, text) of a page's blocks."""
    for note, language, text in BLOCK.findall(page.read_text()):
        yield note.removeprefix("not run: ") if note else None, language, text


@pytest.fixture
def place(tmp_path, images, monkeypatch):
    """A folder as a checkout is, with the files of which the pages speak."""
    for name in ("launch.py", "emnist_jax", "experiments", "tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "bin").mkdir()
    console = PYTHON.replace('"$@"\n', '-m emnist_jax "$@"\n')
    programs = {"python": PYTHON, "pip": "#!/bin/true\n", "emnist-jax": console}
    for name, program in programs.items():
        (tmp_path / "bin" / name).write_text(program)
        (tmp_path / "bin" / name).chmod(0o755)
    np.save(tmp_path / "images.npy", images[..., 0])
    np.save(tmp_path / "test.npy", 255 - images[:20, ..., 0])
    for row, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row, ..., 0]).save(tmp_path / "pictures" / name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, place):
    run = [b for b in blocks(page) if b[0] is None]
    if any("glyphs-model03-best-seed0" in text for _, _, text in run):
        call = ["python", "launch.py", "--decoder=model03", "--dataset=glyphs"]
        few = [*FEW.split(), "--run_name=glyphs-model03-best-seed0"]
        subprocess.run([*call, *few], check=True, stdout=subprocess.DEVNULL)
    for _, language, text in run:
        call = ["bash", "-euo", "pipefail"] if language == "bash" else ["python"]
        done = subprocess.run([*call, "-c", text], capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr}"


def test_blocks_that_are_not_run_say_why():
    notes = [note for page in PAGES for note, _, _ in blocks(page) if note is not None]
    assert notes and all(len(note.split()) >= 2 for note in notes if note != "tests")


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"

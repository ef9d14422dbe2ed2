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
RUN = "glyphs-model03-best-seed0"
FEW = "--train_examples=40 --test_examples=6 --epochs=1 --batch_size=20"
# A user's `python`, but that trainings are as short as can be.
PYTHON = f"""#!/bin/bash
[ "$1" = launch.py ] && set -- "$@" {FEW}
exec {sys.executable} "$@"
"""

# A sweep's lists, and what is enough of them to see that its commands work.
SHORTER = {"in 8 16 32 64;": "in 8 16;", "in 0 1 2;": "in 0;"}


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


@pytest.fixture(scope="session")
def glyphs_run(tmp_path_factory):
    """Folder of the run that README trains, as short as PYTHON makes it."""
    folder = tmp_path_factory.mktemp("runs")
    call = [sys.executable, "launch.py", "--decoder=model03", "--dataset=glyphs"]
    call += [*FEW.split(), f"--workdir={folder}", f"--run_name={RUN}"]
    subprocess.run(call, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return folder / RUN


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, place, glyphs_run):
    run = [b for b in blocks(page) if b[0] is None]
    if any(RUN in text for _, _, text in run):
        shutil.copytree(glyphs_run, place / "runs" / RUN)
    for _, language, text in run:
        for whole, part in SHORTER.items():
            text = text.replace(whole, part)
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

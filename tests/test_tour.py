"""docs/tour.py, and the notebook made of it."""

import json
import os
import subprocess
import sys

import pytest
from tools import notebook


def test_the_notebook_is_made_of_the_text():
    made = notebook.notebook(notebook.TEXT.read_text())
    stored = json.loads(notebook.TEXT.with_suffix(".ipynb").read_text())
    assert stored == made, "python -m tests.tools.notebook"
    code = [
        c for kind, c in notebook.cells(notebook.TEXT.read_text()) if kind == "code"
    ]
    assert len(code) >= 10 and not any("# %%" in c for c in code)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_tour_runs_as_a_script(tmp_path):
    few = {"TOUR_IMAGES": "60", "TOUR_EPOCHS": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "EMNIST_ARCHIVE"}
    done = subprocess.run(
        [sys.executable, notebook.TEXT],
        env=environment | few | {"PYTHONPATH": str(notebook.TEXT.parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for text in ("84.3 MB", "337.4 MB", "13.8 MB", "60 test images", "bits per pixel"):
        assert text in done.stdout
    assert "largest error: 4" in done.stdout

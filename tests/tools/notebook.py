"""Makes docs/tour.ipynb of docs/tour.py, the paired text in Jupytext's percent form.

python -m tests.tools.notebook
"""

import json
import pathlib
import re

from emnist_jax.storage import files

TEXT = pathlib.Path(__file__).parents[2] / "docs" / "tour.py"


def cells(text: str) -> list[tuple[str, str]]:
    """Kind, 'markdown' or 'code', and content of each cell of the text."""
    found = []
    for part in re.split(r"^# %%", text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        markdown, body = head == " [markdown]", body.strip("\n")
        if markdown:
            body = re.sub(r"^# ?", "", body, flags=re.M)
        found.append(("markdown" if markdown else "code", body))
    return found


def notebook(text: str) -> dict:
    """The text as a notebook without outputs."""
    made = []
    for number, (kind, body) in enumerate(cells(text)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell | {"source": body.splitlines(keepends=True)})
    metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    metadata["kernelspec"]["name"] = "python3"
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def main() -> None:
    """Writes the notebook beside its text."""
    with files.write_atomically(TEXT.with_suffix(".ipynb")) as temporary:
        temporary.write_text(json.dumps(notebook(TEXT.read_text()), indent=1) + "\n")


if __name__ == "__main__":
    main()

import html.parser
import json
import re
import shutil

import numpy as np
import pytest

from emnist_jax.cli.errors import UserError
from emnist_jax.cli.flags import parse_config
from emnist_jax.config import make_config
from experiments import report, report_page, tables

VOID = {"meta", "img", "input"}


class Checker(html.parser.HTMLParser):
    """Every element is closed in order; collects ids, references and cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.cells = [], [], [], []
        self.tags, self.attributes, self.scripts = set(), set(), 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.attributes |= attributes.keys()
        self.scripts += tag == "script"
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[x] for x in ("src", "href") if x in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_markdown_becomes_tables():
    text = "| a | b |\n|---|---|\n| **1** | x < y |\n| 2 | |\n\n\\* a *note*\n"
    page = report_page.from_markdown(text)
    assert "<p>* a <em>note</em></p>" in page and "<td><strong>1</strong></td>" in page
    assert Checker(page).cells == ["x < y", "2"]
    assert page.count("<tr>") == 3 and page.count("<th ") == 2


def test_no_text_becomes_markup():
    hostile = "<img src=x> [a](http://b) ![c](http://d) <http://e> &lt; \n# h\n- i\n"
    for text in (hostile, tables.plain(hostile), tables.plain("*a* `b` __c__ | d")):
        found = Checker(report_page.from_markdown(text))
        assert found.tags <= {"p"} and not found.links
    page = report_page.from_markdown(tables.markdown("a", [(tables.plain(hostile),)]))
    assert Checker(page).tags == {
        *("div", "table", "thead", "tbody", "tr", "th", "td", "button")
    }


def test_the_page_stands_alone(tmp_path, run_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "comparison.md").write_text(
        "| decoder | MSE |\n|---|---|\n| m | 1 |\n"
    )
    (tmp_path / "a" / "study.json").write_text('{"epochs": 7, "seeds": null}')
    np.save(tmp_path / "not-a-table.npy", np.zeros(2))
    report.main([f"--workdir={tmp_path}", f"--runs={run_path}"])
    page = (tmp_path / "report.html").read_text()
    checked = Checker(page)
    assert len(set(checked.ids)) == len(checked.ids)
    for link in checked.links:  # nothing outside of the page
        assert link.startswith("data:image/png;base64,") or link[1:] in checked.ids
    assert not re.search(r"https?://|@import|url\(", page)
    assert run_path.name in checked.cells and "The four decoders" in page
    assert page.count('class="made"') == 30
    assert "<p>epochs 7</p>" in page


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "[x](javascript:alert(1)) ![x](http://evil/x.png) <https://evil>",
    "`</code><svg onload=alert(1)>` a|b\n\n# c\n<b>x</b>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_run_says_is_no_markup(tmp_path, run_copy, text):
    record = json.loads((run_copy / "results.json").read_text())
    record["name"] = record["dataset"]["test"] = record["test"]["active_latents"] = text
    record["config"] |= dict.fromkeys(("decoder", "run_name", "images"), text)
    record["training"]["epochs"] = text
    (run_copy / "results.json").write_text(json.dumps(record))
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "comparison.md").write_text(f"| {text} |\n|---|\n| {text} |\n\n{text}\n")
    (folder / "study.json").write_text(json.dumps({text: text}))
    report.main([f"--workdir={folder}", f"--runs={run_copy}", f"--title={text}"])
    page = Checker((folder / "report.html").read_text())
    allowed = {"id", "class", "type", "src", "alt", "href", "for", "tabindex", "scope"}
    allowed |= {"lang", "charset", "name", "content"}
    assert page.attributes <= allowed and not page.tags & {"svg", "b", "h4", "iframe"}
    assert page.scripts == 1 and len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert link.startswith("data:image/png;base64,") or link[1:] in page.ids


@pytest.mark.parametrize("value", [None, "x", [], {}, -1])
def test_results_of_other_types_are_one_line(run_copy, value):
    path = run_copy / "results.json"
    whole = json.loads(path.read_text())
    refused = 0
    for name in ("name", "status", "dataset", "config", "training", "test", "sizes"):
        path.write_text(json.dumps(whole | {name: value}))
        try:
            report.run_sections([run_copy])
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused >= 4


def test_the_command_shown_gives_the_same_settings():
    config = make_config(preset="published", decoder="model02", seed=3, epochs=2)
    settings = {**vars(config), "workdir": "/elsewhere", "emnist_archive": "/x/a.zip"}
    shown = report.launch_command(settings)
    assert shown.startswith("python launch.py --preset=published")
    again = parse_config(["launch.py", *shown.split()[2:]], "")
    assert vars(again) == vars(config) | {"emnist_archive": "a.zip"}


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="holds no table of a study"):
        report.main([f"--workdir={tmp_path}"])


def test_the_page_of_somebody_else_stays(tmp_path):
    (tmp_path / "report.html").write_text("<html>my own</html>")
    with pytest.raises(UserError, match="was not written by this command; move it"):
        report.main([f"--workdir={tmp_path}"])
    assert (tmp_path / "report.html").read_text() == "<html>my own</html>"


def test_runs_without_example_images(tmp_path, run_path):
    shutil.copytree(run_path, tmp_path / "run")
    call = [f"--workdir={tmp_path}", f"--runs={tmp_path / 'run'}"]
    examples = tmp_path / "run" / "figures" / "examples.npz"
    content = examples.read_bytes()
    for damage in (content[:100], content[:-50], b""):
        examples.write_bytes(damage)
        with pytest.raises(UserError, match="cannot read .*examples.npz"):
            report.main(call)
    examples.unlink()
    with pytest.raises(UserError, match="examples.npz: .*No such file"):
        report.main(call)

"""Pieces of a self-contained HTML page: tables that sort, images that flip."""

import base64
import html
import io
import pathlib
from collections.abc import Iterable

import matplotlib.image
import numpy as np

TILE = 28
# By this a page is known as one of ours, which may be replaced.
MARK = '<meta name="generator" content="emnist_jax report">'

STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #3182bd; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto;
  padding: 1rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; font-size: 1.25rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
nav a { margin-right: 1rem; display: inline-block; padding: .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .7rem;
  text-align: left; font-variant-numeric: tabular-nums; }
th { vertical-align: bottom; } td { white-space: nowrap; } td.wide { white-space:
  normal; min-width: 14rem; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid
  var(--accent); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
figure { margin: 1rem 0; } figure > img { max-width: 100%; height: auto;
  background: white; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); font-size:
  .85rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(62px, 1fr));
  gap: 6px; }
.tile { font-size: .7rem; text-align: center; }
.tile span { display: block; position: relative; width: 56px; height: 56px;
  margin: 0 auto; }
.tile img { position: absolute; inset: 0; width: 56px; height: 56px;
  image-rendering: pixelated; background: black; }
.tile .original, .flip:checked ~ .tiles .made { visibility: hidden; }
.flip:checked ~ .tiles .original, .tile:hover .original, .tile:focus .original
  { visibility: visible; }
.tile:hover .made, .tile:focus .made { visibility: hidden; }
@media print { body { max-width: none; font-size: 10pt; } nav, .flip, .flip + label
  { display: none; } .scroll { overflow: visible; } td { white-space: normal; }
  h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; }
  .tile span { width: 120px; } .tile .original { visibility: visible !important; }
  .tile .made { visibility: visible !important; left: 60px; } .tiles {
  grid-template-columns: repeat(5, 1fr); } pre { white-space: pre-wrap; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table"))
  table.querySelectorAll("th").forEach((th, column) => th.querySelector("button")
    .addEventListener("click", () => {
      const up = th.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach(x => x.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => {
        const text = row.cells[column].textContent.trim(), value = parseFloat(text);
        return Number.isNaN(value) ? text : value;
      };
      const body = table.tBodies[0];
      [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        const order = typeof x === "number" && typeof y === "number" ? x - y
          : String(x).localeCompare(String(y));
        return up ? order : -order;
      }).forEach(row => body.append(row));
    }));
"""


def page(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """The whole page, of (heading, HTML) pairs."""
    title, links, bodies = html.escape(title), "", ""
    for number, (heading, body) in enumerate(sections):
        heading = html.escape(heading)
        links += f'<a href="#s{number}">{heading}</a>'
        bodies += f'<section id="s{number}"><h2>{heading}</h2>{body}</section>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"{MARK}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f"<h1>{title}</h1><nav>{links}</nav>{bodies}"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def from_markdown(text: str) -> str:
    """HTML of Markdown: paragraphs, emphasis, code, and tables whose columns sort.

    Nothing else, so that no text can bring HTML, links or images into the page.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("zero").enable(["table", "emphasis", "backticks", "escape"])
    for name, tag in {
        "table_open": '<div class="scroll"><table>',
        "table_close": "</table></div>",
        "th_open": '<th scope="col"><button type="button">',
        "th_close": "</button></th>",
    }.items():
        parser.add_render_rule(name, lambda *_, tag=tag: tag)
    parser.add_render_rule("td_open", _open_cell)
    return parser.render(text)


def _open_cell(_, tokens, index, *__) -> str:
    return '<td class="wide">' if len(tokens[index + 1].content) > 40 else "<td>"


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{html.escape(text)}</h3>"


def figure(path: pathlib.Path, caption: str) -> str:
    """A PNG file with its caption, inside the page."""
    return (
        f'<figure><img src="{_data_uri(path.read_bytes())}" '
        f'alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def flipping(name: str, examples: dict[str, np.ndarray]) -> str:
    """Reconstructions that show their originals on hover, focus or a tap.

    Args:
      name: of the run; unique on the page.
      examples: a run's `figures/examples.npz`.
    """
    tiles = []
    for original, made, error in zip(
        examples["original"], examples["autoencoder"], examples["mse"], strict=True
    ):
        images = "".join(
            f'<img class="{kind}" alt="{kind}" src="{_data_uri(_png(pixels))}">'
            for kind, pixels in (("original", original), ("made", made))
        )
        tiles.append(
            f'<div class="tile" tabindex="0"><span>{images}</span>{error:.4f}</div>'
        )
    key = f"flip-{html.escape(name, quote=True)}"
    return (
        f'<input class="flip" type="checkbox" id="{key}"> '
        f'<label for="{key}">originals instead of reconstructions</label>'
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


def command(text: str) -> str:
    """A command line to copy."""
    return f"<pre>{html.escape(text)}</pre>"


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    matplotlib.image.imsave(
        buffer, pixels[..., 0], cmap="gray", vmin=0, vmax=255, format="png"
    )
    return buffer.getvalue()


def _data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"

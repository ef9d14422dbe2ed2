"""The page to play with: what is in it, in Node, in Chromium and in WebKit."""

import base64
import functools
import hashlib
import json
import re
import shutil
import zlib

import jax
import numpy as np
import pytest
from codec_models import GOLDEN
from page_tools import PAGE, Browser, ask_node
from webkit_tools import WebKit

from emnist_jax import UserError, codec, load_run
from emnist_jax.explore import __main__ as explore
from emnist_jax.explore import page, weights
from emnist_jax.models.decoders import make_decoder
from emnist_jax.models.encoder import Encoder

NAME = "<!--<script>alert(1)</b>".replace("/", "") + '"&'


@pytest.fixture(scope="module")
def built(run_path, tmp_path_factory):
    """The page of a run with a name that must be escaped, and the run."""
    folder = tmp_path_factory.mktemp("page")
    path = shutil.copytree(run_path, folder / NAME)
    explore.main([f"--run={path}", f"--out={folder / 'explore.html'}"])
    return folder / "explore.html", load_run(path)


@pytest.fixture
def ask(tmp_path):
    worker = "autoencoder_in_javascript.mjs"
    return functools.partial(ask_node, worker, [PAGE, tmp_path])


def test_the_page_is_one_small_file(built):
    text = built[0].read_text()
    assert len(text.encode()) <= explore.LARGEST
    assert re.findall('(?:src|href)="([^"]*)"', text) == ["data:,"]
    assert not re.search(r"@import|url\(|{{\w+}}", text)
    assert "alert(1)" in text and NAME not in text
    script = text[text.index("<style>") :]
    assert script.count("<script") == script.count("</script>") == 4
    assert "<!--" not in script and not re.search("^(import|export) ", script, re.M)
    assert "connect-src" not in text and "default-src 'none'" in text  # no network


def test_the_autoencoder_agrees_with_jax(ask, tmp_path, run_path, images):
    run = load_run(run_path)
    layers, content = weights.layers(run)
    (tmp_path / "weights").write_bytes(content)
    pixels = images[:2].reshape(2, -1).tolist()
    jobs = [{"job": "reconstruct", "layers": layers, "pixels": one} for one in pixels]
    answers = ask(jobs)
    latents = run.encode(images[:2])
    found = np.array([answer["latents"] for answer in answers])
    np.testing.assert_allclose(found, latents, atol=1e-4 * np.abs(latents).max())
    found = np.array([answer["image"] for answer in answers])
    wanted = run.decode(latents).reshape(2, -1)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert page.largest_difference(run, images[:2]) < 1e-4


class _Untrained:
    """A run without files, whose parameters are zeros."""

    path, image_size = "here", (28, 28)

    def __init__(self, decoder, encoder=None):
        def zeros(module, *shape):
            made = jax.eval_shape(module.init, jax.random.key(0), np.zeros(shape, "f"))
            return jax.tree.map(lambda leaf: np.zeros(leaf.shape, "f"), made["params"])

        encoder = Encoder(5, "relu")
        self.encoder = encoder, zeros(encoder, 1, 28, 28, 1)
        self.decoder = decoder, zeros(decoder, 1, 5)


@pytest.mark.parametrize("number, upsampling", [(1, 3), (2, 4), (3, 2), (4, 1)])
def test_layers_of_every_decoder(number, upsampling):
    described, content = weights.layers(_Untrained(make_decoder(f"model0{number}")))
    *hidden, output = described["decoder"][1:]
    assert [layer["stride"] for layer in hidden].index(2) == upsampling - 1
    assert [layer["size"] for layer in (*hidden, output)] == [14] * upsampling + [
        28
    ] * (5 - upsampling)
    assert described["encoder"][-1]["activation"] == "relu"
    kernels = [layer["kernel"] for part in described.values() for layer in part]
    whole = sum(2 * np.prod(k) + 8 * k[-1] for k in kernels)
    assert len(zlib.decompress(content)) == whole


def test_runs_that_the_page_does_not_know():
    class Other:
        pass

    run = _Untrained(make_decoder("model01"))
    run.decoder = Other(), {}
    with pytest.raises(UserError, match="transposed convolutions, not Other"):
        weights.layers(run)
    run.image_size = (32, 24)
    run.decoder = _Untrained(make_decoder("model01")).decoder
    with pytest.raises(UserError, match="28x28 pixels, not 32x24"):
        weights.layers(run)


def test_drawings_are_centred_and_scaled(ask):
    """A small stroke in a corner fills the box; a dot stays small, in the middle."""
    stroke = [[0.1, 0.1], [0.3, 0.1], [0.3, 0.5]]
    jobs = [{"job": "draw", "strokes": s} for s in ([stroke], [[[0.9, 0.2]]], [])]
    drawn, dot, empty = np.array(ask(jobs)).reshape(3, 28, 28)
    rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
    assert rows[0] == 27 - rows[-1] == 1 and columns[0] == 27 - columns[-1] == 7
    assert drawn.max() == 255 and ((drawn > 0) & (drawn < 255)).any()
    assert 4 <= np.count_nonzero(dot) <= 25 and dot[13:15, 13:15].min() > 200
    assert not empty.any()


def test_shipped_weights_show_glyphs(tmp_path):
    """What they were trained on is not in the package."""
    out = tmp_path / "page.html"
    explore.main(["--run=pretrained/model02", f"--out={out}"])
    assert "60 test images of built-in glyphs" in out.read_text()


def test_examples_are_of_all_classes():
    labels = np.array([2, 2, 2, 0, 1, 0])
    assert page.chosen(labels, 4).tolist() == [3, 4, 0, 5]


SHOWN = """
(() => {
  const all = [...document.querySelectorAll("#images canvas")].flatMap((canvas) => {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    return [...data].filter((_, at) => at % 4 === 3);
  });
  return btoa(String.fromCharCode.apply(null, all.slice(0, 50000)));
})()
"""
"""The pixels of the images of a dropped file, as they stand on the page."""


def _shown(browser, path):
    """The pixels that the page shows of a dropped file."""
    ready = "document.querySelector('#images').dataset"
    browser.evaluate(f"delete {ready}.done")
    browser.choose("#file", path)
    browser.wait_for(f"{ready}.done")
    return base64.b64decode(browser.evaluate(SHOWN))


def _check_golden_files(browser, html):
    facts = json.loads((GOLDEN / "codec.json").read_text())
    browser.open(html)
    browser.wait_for("document.querySelector('#sizes tr') !== null")
    assert browser.evaluate("document.querySelector('#run').textContent") == NAME
    for mode in ("lossless", "near-lossless", "lossy", "version-2"):
        pixels = _shown(browser, GOLDEN / f"codec_{mode}.ejx")
        assert hashlib.sha256(pixels).hexdigest() == facts[mode]["pixels"]
        said = browser.evaluate("document.querySelector('#file-note').textContent")
        assert "40 images of 28 x 28" in said and "undefined" not in said


@pytest.mark.long
def test_golden_files_in_webkit(built):
    with WebKit() as browser:
        _check_golden_files(browser, built[0])


@pytest.mark.long
def test_golden_files_and_everything_else_in_chromium(built, tmp_path, images):
    html, run = built
    latent = tmp_path / "latent.ejx"
    codec.compress_file(latent, images[:3], mode="latent", run=run)
    with Browser(tmp_path) as browser:
        _check_golden_files(browser, html)
        found = np.frombuffer(_shown(browser, latent), np.uint8).astype(int)
        wanted = codec.decompress(latent.read_bytes(), run=run).ravel()
        assert np.abs(found - wanted).max() <= 1
        browser.choose("#file", GOLDEN / "codec_latent.ejx")
        note = "document.querySelector('#file-note.wrong')?.textContent"
        assert "another autoencoder" in browser.wait_for(note)

        browser.drag("#paper", (0.2, 0.2), (0.8, 0.2), (0.4, 0.9))
        what = "document.querySelector('#what').textContent"
        browser.wait_for(f"{what} === 'your drawing'")
        change = "(s => {{ s.value = {}; s.oninput() }})(document.querySelector('{}'))"
        sizes = []
        for error, note in ((8, "largest error"), (0, "every pixel exact")):
            browser.evaluate(change.format(error, "#error"))
            shown = "document.querySelector('#decoded-note').textContent"
            browser.wait_for(f"{shown}.startsWith('{note}')")
            size = "document.querySelector('#sizes td').textContent"
            sizes.append(int(browser.evaluate(size)))
        assert sizes[0] < sizes[1]
        picture = "document.querySelector('#{}').toDataURL()".format
        reset = f"{picture('moved')} === {picture('reconstruction')}"
        browser.wait_for(reset)
        lowest = "document.querySelector('#latent0').min"
        browser.evaluate(change.format(lowest, "#latent0"))
        browser.wait_for(f"!({reset})")
        browser.evaluate("document.querySelector('#back').click()")
        browser.wait_for(reset)
        assert browser.problems == []

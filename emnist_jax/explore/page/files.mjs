// The drop zone: the images of an .ejx file, a page of them at a time.

import { element, paint } from "./pictures.mjs";
import { MODE_NAMES } from "./codec/container.mjs";

const PAGE_IMAGES = 100;
const PAGE_PIXELS = 2 ** 20;
const LARGEST_FILE = 2 ** 28;

/** `makeEngine` gives the worker that reads a file; the next file gets a new one. */
export function showFiles(makeEngine) {
  const $ = (id) => document.getElementById(id);
  let [engine, opened, page, shown] = [null, null, 0, 0];

  const say = (text, wrong = false) => {
    $("file-note").textContent = text;
    $("file-note").classList.toggle("wrong", wrong);
  };

  async function open(file) {
    engine?.stop();
    engine = makeEngine();
    const own = engine;
    opened = null;
    $("pager").hidden = true;
    $("images").replaceChildren();
    say(`reading ${file.name} ...`);
    try {
      if (file.size > LARGEST_FILE) throw new Error("is larger than this page reads");
      const bytes = new Uint8Array(await file.arrayBuffer());
      const head = await own.ask("open", { bytes });
      if (own !== engine) return;
      const { mode, images, height, width, parameter } = head;
      const detail = ["", `, errors up to ${parameter}`, ` of ${parameter} bits`, ""][mode];
      const rate = ((8 * file.size) / (images * height * width)).toFixed(3);
      const size = `${file.size.toLocaleString("en")} bytes`;
      const perPixel = images ? `, ${rate} bits per pixel` : "";
      const count = `${images.toLocaleString("en")} images of ${width} x ${height}`;
      opened = { ...head, summary: `${file.name}: ${count}, ${MODE_NAMES[mode]}${detail}, ${size}${perPixel}` };
      opened.perPage = Math.max(1, Math.min(PAGE_IMAGES, Math.floor(PAGE_PIXELS / (height * width))));
      say(opened.summary);
      await turnTo(0);
    } catch (error) {
      if (own === engine) say(`${file.name} ${error.message}`, true);
    }
  }

  async function turnTo(number) {
    const own = engine;
    const { images, perPage, height, width, summary } = opened;
    const pages = Math.max(1, Math.ceil(images / perPage));
    page = Math.min(Math.max(number, 0), pages - 1);
    const asked = ++shown;
    const [first, last] = [page * perPage, Math.min(images, (page + 1) * perPage)];
    $("pager").hidden = pages === 1;
    $("page").textContent = `page ${page + 1} of ${pages}`;
    [$("previous").disabled, $("next").disabled] = [page === 0, page === pages - 1];
    const canvases = Array.from({ length: last - first }, (_, i) => {
      const canvas = element("canvas", { role: "img", "aria-label": `image ${first + i + 1}` });
      canvas.style.width = `${Math.min(Math.max(2 * width, 24), 280)}px`;
      return canvas;
    });
    $("images").replaceChildren(...canvases);
    const show = (pixels) =>
      canvases.forEach((canvas, i) =>
        paint(canvas, pixels.subarray(i * height * width, (i + 1) * height * width), width, height),
      );
    const pixels = await own.ask("images", { first, last }, ({ share, pixels }) => {
      if (own !== engine || asked !== shown) return;
      show(pixels);
      $("file-progress").hidden = false;
      $("file-progress").value = share;
    });
    if (own !== engine || asked !== shown) return;
    $("file-progress").hidden = true;
    show(pixels);
    say(summary);
    $("images").dataset.done = `${first}-${last}`;
  }

  $("file").onchange = ({ target }) => target.files.length && open(target.files[0]);
  const turn = (by) => turnTo(page + by).catch((error) => say(error.message, true));
  $("previous").onclick = () => turn(-1);
  $("next").onclick = () => turn(1);
  const zone = $("drop");
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  window.addEventListener("dragleave", () => zone.classList.remove("over"));
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });
}

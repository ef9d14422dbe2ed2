// The page: one character at a time, all that is known of it, and files.

import { fromBase64 } from "./codec/bytes.mjs";
import { Engine } from "./client.mjs";
import { drawOn, rasterise } from "./drawing.mjs";
import { showFiles } from "./files.mjs";
import { canvasBytes, element, grayPngLength, paint, paintHeat, paintUnit, webpLength } from "./pictures.mjs";

const PIXELS = 784;
const $ = (id) => document.getElementById(id);
const about = JSON.parse($("data").textContent);
const read = (id) => $(id).textContent;
const given = {
  layers: about.layers,
  decoderDigest: about.decoder_digest,
  models: about.models,
  weights: read("weights"),
};
const [autoencoder, walker, codec] = [1, 2, 3].map(() => new Engine(given));
const examples = fromBase64(about.examples.pixels);
const example = (number) => examples.subarray(number * PIXELS, (number + 1) * PIXELS);

const character = { pixels: example(0), name: "", latents: [] };
const walk = { from: null, to: null };

// One character -------------------------------------------------------------------------

async function take(pixels, name) {
  Object.assign(character, { pixels, name });
  paint($("original"), pixels);
  $("what").textContent = name;
  compress();
  await autoencoder.latest("encode", "encode", { pixels }, (latents) => {
    setLatents(latents);
    setWalk("from", name, latents);
  });
}

function setLatents(latents) {
  character.encoded = Array.from(latents);
  moveTo(character.encoded);
  const { pixels } = character;
  autoencoder.latest("reconstruct", "decode", { latents: [latents] }, ([image]) => {
    paintUnit($("reconstruction"), image);
    const mse = image.reduce((sum, value, i) => sum + (value - pixels[i] / 255) ** 2, 0) / PIXELS;
    const decibels = mse ? `, PSNR ${(-10 * Math.log10(mse)).toFixed(1)} dB` : "";
    $("quality").textContent = `MSE ${mse.toFixed(4)}${decibels}`;
  });
}

const drawing = drawOn($("paper"), (strokes) => {
  $("hint").hidden = strokes.length > 0;
  if (strokes.length) take(rasterise(strokes), "your drawing");
});
$("clear").onclick = () => drawing.clear();
$("undo").onclick = () => drawing.undo();

about.examples.names.forEach((name, number) => {
  for (const [list, choose] of [
    ["examples", () => (drawing.clear(), take(example(number), name))],
    ["ends", () => chooseEnd(number)],
  ]) {
    const picture = element("canvas", { "aria-hidden": "true" });
    paint(picture, example(number));
    const button = element("button", { type: "button", "aria-label": name, title: name }, picture);
    button.onclick = choose;
    $(list).append(button);
  }
});

// Its numbers ---------------------------------------------------------------------------

const sliders = about.latents.map(({ low, high }, number) => {
  const label = element("label", { for: `latent${number}` }, `${number + 1}`);
  const step = (high - low) / 200 || 0.01;
  const attributes = { type: "range", id: `latent${number}`, min: low, max: high, step };
  const slider = element("input", attributes);
  const shown = element("output", { for: `latent${number}` });
  $("sliders").append(element("div", {}, label, slider, shown));
  slider.oninput = () => {
    character.latents[number] = Number(slider.value);
    shown.textContent = character.latents[number].toFixed(2);
    showMoved();
  };
  return { slider, shown };
});

function showSliders() {
  sliders.forEach(({ slider, shown }, number) => {
    const value = character.latents[number];
    slider.min = Math.min(about.latents[number].low, value);
    slider.max = Math.max(about.latents[number].high, value);
    slider.value = value;
    shown.textContent = value.toFixed(2);
  });
}

function moveTo(latents) {
  character.latents = [...latents];
  showSliders();
  showMoved();
}

const showMoved = () =>
  autoencoder.latest("moved", "decode", { latents: [character.latents] }, ([image]) => paintUnit($("moved"), image));
$("back").onclick = () => moveTo(character.encoded);
$("mean").onclick = () => moveTo(about.latents.map(({ mean }) => mean));

// The walk ------------------------------------------------------------------------------

const STEPS = 9;
for (let step = 0; step < STEPS; step++) $("steps").append(element("canvas", { "aria-hidden": "true" }));

function setWalk(end, name, latents) {
  walk[end] = { name, latents: Array.from(latents) };
  $(`walk-${end}`).textContent = name;
  if (walk.from && walk.to) showWalk();
}

const chooseEnd = (number) =>
  walker.latest("end", "encode", { pixels: example(number) }, (latents) =>
    setWalk("to", about.examples.names[number], latents),
  );

const between = (share) => walk.from.latents.map((v, i) => v + (walk.to.latents[i] - v) * share);

function showWalk() {
  const latents = Array.from({ length: STEPS }, (_, step) => between(step / (STEPS - 1)));
  walker.latest("walk", "decode", { latents }, (images) =>
    images.forEach((image, step) => paintUnit($("steps").children[step], image)),
  );
  showPosition();
}

function showPosition() {
  const share = Number($("position").value) / 100;
  $("position-shown").textContent = `${Math.round(100 * share)}%`;
  walker.latest("position", "decode", { latents: [between(share)] }, ([image]) =>
    paintUnit($("walked"), image),
  );
}
$("position").oninput = showPosition;

// As a file -----------------------------------------------------------------------------

const HEAT_BITS = 8;
$("heat-most").textContent = `${HEAT_BITS} bits or more`;

function compress() {
  const maxError = Number($("error").value);
  const { pixels, name } = character;
  $("error-shown").textContent = maxError ? `off by at most ${maxError} of 255` : "0: lossless";
  codec.latest("compress", "compress", { pixels, size: 28, maxError }, async (found) => {
    const canvas = (await canvasBytes("image/png", pixels)).length;
    const [png, webp] = [await grayPngLength(pixels), await webpLength(pixels)];
    const off = pixels.reduce((most, value, i) => Math.max(most, Math.abs(value - found.decoded[i])), 0);
    const exact = off ? `largest error ${off}` : "every pixel exact";
    const spent = found.bits.reduce((a, b) => a + b);
    paint($("decoded"), found.decoded);
    paintHeat($("heat"), found.bits, HEAT_BITS);
    $("decoded-note").textContent = exact;
    $("heat-note").textContent = `${Math.round(spent)} bits in ${PIXELS} pixels`;
    showSizes([
      ["this codec", found.bytes.length, `a whole .ejx file, ${exact}`, true],
      ["WebP of this browser", webp, webp === null ? "it writes none" : "at quality 1; without its colour profile"],
      ["PNG, 8-bit gray", png, `every pixel exact; ${canvas} bytes from the canvas, as RGBA`],
      [`${about.latents.length} numbers as float32`, 4 * about.latents.length, "lossy: the reconstruction"],
      ["raw pixels", PIXELS, "every pixel exact"],
    ]);
    $("save").onclick = () => save(found.bytes, `${name.replace(/\W+/g, "-") || "character"}.ejx`);
  });
}

function showSizes(rows) {
  const most = Math.max(...rows.map(([, bytes]) => bytes ?? 0));
  $("sizes").replaceChildren(
    ...rows.map(([name, bytes, note, ours]) => {
      const bar = element("span", { class: ours ? "bar ours" : "bar" });
      bar.style.setProperty("--share", (bytes ?? 0) / most);
      const size = bytes === null ? "-" : `${bytes}`;
      const rate = bytes === null ? "-" : ((8 * bytes) / PIXELS).toFixed(2);
      const title = element("th", { scope: "row" }, name, element("span", { class: "note" }, note));
      return element("tr", {}, title, element("td", {}, size, bar), element("td", {}, rate));
    }),
  );
}

function save(bytes, name) {
  const address = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  element("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}
$("error").oninput = compress;

// ---------------------------------------------------------------------------------------

for (const [id, text] of Object.entries(about.texts)) $(id).textContent = text;
for (const count of document.querySelectorAll(".count")) count.textContent = about.latents.length;
$("old").hidden = typeof DecompressionStream !== "undefined";
addEventListener("unhandledrejection", ({ reason }) => {
  $("failed").hidden = false;
  $("failed").textContent = `This browser fails here: ${reason.message}`;
});
document.title = `${about.texts.run}: explore`;
showFiles(() => new Engine(given));
take(example(0), about.examples.names[0]);
chooseEnd(Math.min(1, about.examples.names.length - 1));

// Pixels on canvases. Ink is black with the pixel as its alpha; in the dark CSS inverts it.

import { deflate } from "./codec/bytes.mjs";

export function paint(canvas, pixels, width = 28, height = pixels.length / width) {
  Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height);
  pixels.forEach((value, i) => (picture.data[4 * i + 3] = value));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Floats in [0, 1] as a picture. */
export function paintUnit(canvas, values) {
  paint(canvas, Uint8Array.from(values, (value) => Math.round(255 * value)));
}

export const HEAT = ["#fff6d5", "#fdc66e", "#ee7b3a", "#c3314b", "#5b1a5e"].map((colour) =>
  [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)),
);

/** Bits of each pixel as colours; `most` bits and above are the last colour. */
export function paintHeat(canvas, bits, most) {
  const picture = new ImageData(28, 28);
  bits.forEach((value, i) => {
    const along = Math.min(value / most, 1) * (HEAT.length - 1);
    const [low, share] = [Math.floor(along), along % 1];
    const [from, to] = [HEAT[low], HEAT[Math.min(low + 1, HEAT.length - 1)]];
    picture.data.set([...from.map((v, axis) => v + (to[axis] - v) * share), 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Bytes of the pixels in a format of the browser's canvas; null where it has not got it. */
export async function canvasBytes(type, pixels) {
  const canvas = element("canvas", { width: 28, height: 28 });
  const picture = new ImageData(28, 28);
  pixels.forEach((value, i) => picture.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(picture, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 1)); // 1: lossless WebP
  return blob?.type === type ? new Uint8Array(await blob.arrayBuffer()) : null;
}

/** Bytes of the pixels as a WebP of the canvas, without the colour profile it adds. */
export async function webpLength(pixels) {
  const bytes = await canvasBytes("image/webp", pixels);
  if (bytes === null) return null;
  const view = new DataView(bytes.buffer);
  let length = 12;
  for (let at = 12; at < bytes.length; ) {
    const chunk = 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) % 2);
    if (String.fromCharCode(...bytes.subarray(at, at + 3)) === "VP8" && bytes[at + 3] !== 0x58) length += chunk;
    at += chunk;
  }
  return length;
}

/** Bytes of the pixels as a PNG of 8-bit gray: signature, IHDR, IEND, and IDAT around zlib. */
export async function grayPngLength(pixels) {
  const rows = new Uint8Array(28 * 29); // the first byte of a row is its filter, none
  for (let row = 0; row < 28; row++) rows.set(pixels.subarray(28 * row, 28 * row + 28), 29 * row + 1);
  return 8 + 25 + 12 + 12 + (await deflate(rows)).length;
}

/** An element of the page with attributes and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

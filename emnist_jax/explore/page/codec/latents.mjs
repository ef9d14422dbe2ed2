// Quantised latents: their tables, and levels by them.

import { ByteReader, check, equal, inflate, sha256 } from "./bytes.mjs";
import { TOTAL } from "./lanes.mjs";

/** Reads the tables embedded in a file of mode 2. */
export async function readTables(head) {
  check(head.model !== null, "is damaged: it has no tables");
  const name = sha256(head.model).subarray(0, 4);
  check(equal(name, head.digest), "is damaged: the checksum of its tables does not match");
  const reader = new ByteReader(head.model);
  const decoder = reader.take(4);
  const [dimensions, bits] = [reader.uint(2), reader.uint(1)];
  const sizes = bits === head.parameter && dimensions >= 1 && dimensions <= 4096;
  check(sizes, "is damaged: sizes of its tables out of range");
  const levels = 2 ** bits;
  const floats = dimensions * (head.turned ? 3 : 2);
  const tables = 4 * floats + (head.turned ? dimensions ** 2 : 0);
  const body = await inflate(head.model.subarray(reader.at), tables + 2 * dimensions * levels);
  const view = new DataView(body.buffer);
  const array = (length, give) => Array.from({ length }, (_, i) => give(i));
  const float = (i) => view.getFloat32(4 * i, true);
  const low = array(dimensions, float);
  const direction = (k, d) => (head.turned ? view.getInt8(4 * floats + k * dimensions + d) : +(k === d));
  const scale = (d) => (head.turned ? float(2 * dimensions + d) : 1);
  const basis = array(dimensions, (k) =>
    array(dimensions, (d) => float(dimensions + k) * scale(d) * direction(k, d)));
  const frequency = (i) => view.getUint16(tables + 2 * i, true) + 1;
  const frequencies = array(dimensions, (d) => array(levels, (i) => frequency(d * levels + i)));
  const whole = frequencies.every((row) => row.reduce((sum, f) => sum + f) === TOTAL);
  const finite = [low, ...basis].every((row) => row.every(Number.isFinite));
  check(whole && finite, "is damaged: its tables are impossible");
  return { decoder, low, basis, frequencies };
}

/** Levels [images, dimensions] of a coded block. */
export function decodeLevels({ frequencies }, coder, images) {
  const levels = new Uint8Array(images * frequencies.length);
  frequencies.forEach((row, dimension) => {
    for (let image = 0; image < images; image++)
      levels[image * frequencies.length + dimension] = coder.take(image, dimension, row);
  });
  coder.finish();
  return levels;
}

/** Latents [images][dimensions] of levels. */
export function latentsOf({ low, basis }, levels) {
  const latent = (at, d) => basis.reduce((sum, row, k) => sum + levels[at * low.length + k] * row[d], low[d]);
  const images = levels.length / low.length;
  return Array.from({ length: images }, (_, at) => Float32Array.from(low, (_, d) => latent(at, d)));
}

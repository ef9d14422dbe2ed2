// The integer network: its file, its layers and the frequencies it gives.

import { ByteReader, check, equal, inflate, joined, sha256 } from "./bytes.mjs";
import { TOTAL } from "./lanes.mjs";

export const ROWS = 7; // of the window above the pixel
export const COLUMNS = 7; // on either side of it
export const BIN_STARTS = [0, 1, 4, 8, ...Array.from({ length: 15 }, (_, i) => 16 * i + 16), 248, 254, 255];
export const BINS = BIN_STARTS.length;
const PLACES = 16;
const NEIGHBOURS = ROWS * (2 * COLUMNS + 1) + COLUMNS; // 112
const WIDEST = 512;
const EXP = Array.from({ length: 704 }, (_, d) => Math.floor(16384 * Math.exp(-d / 64) + 0.5));

/** [row, column, number among the 22 nearest or -1] of each pixel of the window. */
const WINDOW = [];
for (let row = -ROWS, near = 0; row <= 0; row++)
  for (let column = -COLUMNS; column <= (row < 0 ? COLUMNS : -1); column++)
    WINDOW.push([row, column, row >= -2 && Math.abs(column) <= 4 ? near++ : -1]);
const NEAREST = WINDOW.filter(([, , near]) => near >= 0).length; // 22

/** Numbers of which most are 0: `index` and `value` of the first `length` others. */
class Sparse {
  constructor(size) {
    this.index = new Int32Array(size + 3); // filled up to a multiple of four
    this.value = new Int32Array(size + 3);
    this.length = 0;
  }

  push(index, value) {
    this.index[this.length] = index;
    this.value[this.length++] = value;
  }
}

class Layer {
  constructor(reader, inputs, outputs) {
    this.outputs = outputs;
    this.weights = new Int8Array(reader.take(inputs * outputs));
    this.shifts = new Uint8Array(reader.take(outputs));
    this.biases = int16s(reader, outputs);
    check(this.shifts.every((shift) => shift >= 4 && shift <= 12), "is damaged: shifts out of range");
    this.sums = new Int32Array(outputs);
    this.given = new Sparse(outputs);
    this.zeros = new Int32Array(outputs);
  }

  /** sum_i x_i w_i of every output; four inputs at a time, which is half as fast again. */
  multiply(x) {
    const { sums, weights, outputs } = this;
    const { index, value } = x;
    sums.fill(0);
    while (x.length % 4) x.push(0, 0);
    for (let n = 0; n < x.length; n += 4) {
      const [v0, v1, v2, v3] = [value[n], value[n + 1], value[n + 2], value[n + 3]];
      const [w0, w1] = [index[n] * outputs, index[n + 1] * outputs];
      const [w2, w3] = [index[n + 2] * outputs, index[n + 3] * outputs];
      for (let o = 0; o < outputs; o++) {
        const first = Math.imul(v0, weights[w0 + o]) + Math.imul(v1, weights[w1 + o]);
        const second = Math.imul(v2, weights[w2 + o]) + Math.imul(v3, weights[w3 + o]);
        sums[o] = (sums[o] + first + second) | 0;
      }
    }
    return sums;
  }

  /** dense(x) from what `multiply` gave, at one output. */
  rounded(sum, output, extra) {
    const shift = this.shifts[output];
    return (sum + ((this.biases[output] + extra) << (shift - 4)) + (1 << (shift - 1))) >> shift;
  }

  /** clip(h + dense(x)), where `h` and `extra` have a number for each output. */
  clipped(sums, extra, h = this.zeros) {
    const given = this.given;
    given.length = 0;
    for (let o = 0; o < this.outputs; o++) {
      const value = h[o] + this.rounded(sums[o], o, extra[o]);
      if (value > 0) given.push(o, value < 255 ? value : 255);
    }
    return given;
  }

  /** clip(h + layer(h)). */
  residual(h) {
    const whole = new Int32Array(this.outputs);
    for (let n = 0; n < h.length; n++) whole[h.index[n]] += h.value[n];
    return this.clipped(this.multiply(h), this.zeros, whole);
  }

  /** Frequencies of the first `count` symbols. */
  frequencies(x, extra = this.zeros, count = this.outputs) {
    const sums = this.multiply(x);
    for (let o = 0; o < count; o++) sums[o] = this.rounded(sums[o], o, extra[o]);
    return frequenciesOf(sums, count);
  }
}

function int16s(reader, count) {
  const bytes = reader.take(2 * count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Int32Array.from({ length: count }, (_, i) => view.getInt16(2 * i, true));
}

/** Frequencies, which sum to 65536, of logits of which the first `count` exist. */
export function frequenciesOf(logits, count) {
  let top = 0;
  for (let i = 1; i < count; i++) if (logits[i] > logits[top]) top = i;
  const weights = new Int32Array(count);
  let sum = 0;
  for (let i = 0; i < count; i++) sum += weights[i] = EXP[Math.min(logits[top] - logits[i], 703)];
  let rest = TOTAL;
  for (let i = 0; i < count; i++) {
    weights[i] = Math.floor((weights[i] * (TOTAL - count)) / sum) + 1;
    rest -= weights[i];
  }
  weights[top] += rest;
  return weights;
}

/** How many places bin `bin` has. */
export const placesOf = (bin) => (BIN_STARTS[bin + 1] ?? 256) - BIN_STARTS[bin];

/** A pixel model: what it expects of a pixel from the window before it. */
export class PixelModel {
  constructor(body, { width, blocks, fine, gate, rows, columns }, digest) {
    const reader = new ByteReader(body);
    const layer = (inputs, outputs) => new Layer(reader, inputs, outputs);
    const table = (count, length) => Array.from({ length: count }, () => int16s(reader, length));
    const inputs = NEIGHBOURS + 2 * NEAREST;
    this.digest = digest;
    this.gateFirst = layer(inputs, gate);
    this.gateBlock = layer(gate, gate);
    this.gateHead = layer(gate, 2);
    this.first = layer(inputs, width);
    this.blocks = Array.from({ length: blocks }, () => layer(width, width));
    this.coarse = layer(width, BINS);
    this.fineHidden = layer(width, fine);
    this.fine = layer(fine, PLACES);
    this.gateRow = table(rows, gate);
    this.gateColumn = table(columns, gate);
    this.row = table(rows, width);
    this.column = table(columns, width);
    this.fineBin = table(BINS, fine);
    this.finePlace = table(BINS, PLACES);
    this.inputs = new Sparse(inputs);
  }

  /** The inputs of the pixel at `at` of a padded image whose rows are `stride` long. */
  look(padded, at, stride) {
    const inputs = this.inputs;
    inputs.length = 0;
    for (let n = 0; n < NEIGHBOURS; n++) {
      const [row, column, near] = WINDOW[n];
      const value = padded[at + row * stride + column];
      if (value === 0) continue;
      inputs.push(n, value);
      if (near < 0) continue;
      inputs.push(NEIGHBOURS + near, Math.min(16 * value, 255));
      if (value > 240) inputs.push(NEIGHBOURS + NEAREST + near, 16 * (value - 240));
    }
  }

  /** Frequencies of: the pixel is 0 (in near-lossless files 0..E), it is not. */
  gate(r, c) {
    const h = this.#start(this.gateFirst, this.gateRow, this.gateColumn, r, c);
    return this.gateHead.frequencies(this.gateBlock.residual(h));
  }

  /** The trunk's last layer, from which bins and places follow. */
  trunk(r, c) {
    let h = this.#start(this.first, this.row, this.column, r, c);
    for (const block of this.blocks) h = block.residual(h);
    return h;
  }

  #start(layer, rows, columns, r, c) {
    const row = rows[Math.min(r, rows.length - 1)];
    const column = columns[Math.min(c, columns.length - 1)];
    const extra = row.map((value, o) => value + column[o]);
    return layer.clipped(layer.multiply(this.inputs), extra);
  }

  bins(h) {
    return this.coarse.frequencies(h);
  }

  /** What of the places does not depend on the bin; good until the next call. */
  fineSums(h) {
    return this.fineHidden.multiply(h);
  }

  places(sums, bin) {
    const d = this.fineHidden.clipped(sums, this.fineBin[bin]);
    return this.fine.frequencies(d, this.finePlace[bin], placesOf(bin));
  }
}

/** Reads a model file. */
export async function readModel(content) {
  const reader = new ByteReader(content);
  check(equal(reader.take(4), [0x45, 0x4a, 0x4d, 0x31]), "is no pixel model"); // EJM1
  const lengths = { width: 2, blocks: 1, fine: 2, gate: 2, rows: 1, columns: 1 };
  const sizes = {};
  for (const [name, length] of Object.entries(lengths)) sizes[name] = reader.uint(length);
  const { width, blocks, fine, gate, rows, columns } = sizes;
  const sound = [width, fine, gate].every((size) => size >= 1 && size <= WIDEST);
  check(sound && blocks <= 16 && rows && columns, "is damaged: sizes of its model out of range");
  const digest = reader.take(4);
  const body = await inflate(content.subarray(reader.at), bodyLength(sizes));
  const found = sha256(joined([content.subarray(4, 13), body])).subarray(0, 4);
  check(equal(found, digest), "is damaged: the checksum of its model does not match");
  return new PixelModel(body, sizes, digest);
}

function bodyLength({ width, blocks, fine, gate, rows, columns }) {
  const layer = (inputs, outputs) => inputs * outputs + 3 * outputs;
  const inputs = NEIGHBOURS + 2 * NEAREST;
  const gates = layer(inputs, gate) + layer(gate, gate) + layer(gate, 2);
  const trunk = layer(inputs, width) + blocks * layer(width, width);
  const heads = layer(width, BINS) + layer(width, fine) + layer(fine, PLACES);
  return gates + trunk + heads + 2 * ((rows + columns) * (gate + width) + BINS * (fine + PLACES));
}

// The entropy coder: range coding in interleaved lanes, integers only.

import { check, joined, uintBytes } from "./bytes.mjs";

export const TOTAL = 65536; // the sum of all frequencies

export const lanesOf = (images) => Math.min(64, Math.max(1, images >> 4));

/** Decodes symbols of image `i` in lane i mod L; images come in order in every step. */
export class LaneReader {
  constructor(bytes, images) {
    const count = lanesOf(images);
    const whole = bytes.length >= 4 * count && bytes.length % 2 === 0;
    check(whole, "is damaged: a coded block is of the wrong length");
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.states = Uint32Array.from({ length: count }, (_, lane) => view.getUint32(4 * lane, true));
    this.view = view;
    this.at = 4 * count;
  }

  /** Returns the symbol, an index of `frequencies` ([first, first + count)). */
  take(image, pixel, frequencies) {
    const lane = image % this.states.length;
    const state = this.states[lane];
    const slot = state % TOTAL;
    let [symbol, start] = [0, 0];
    while (start + frequencies[symbol] <= slot) start += frequencies[symbol++];
    let next = frequencies[symbol] * (state >>> 16) + slot - start;
    if (next < TOTAL) {
      check(this.at < this.view.byteLength, "is damaged: a coded block ends too early");
      next = next * TOTAL + this.view.getUint16(this.at, true);
      this.at += 2;
    }
    this.states[lane] = next;
    return symbol;
  }

  finish() {
    const ended = this.states.every((state) => state === TOTAL);
    check(ended && this.at === this.view.byteLength, "is damaged: a coded block does not end");
  }
}

/** Notes symbols, to be coded from the last to the first; the same calls as LaneReader. */
export class LaneWriter {
  constructor(images, pixels, wanted) {
    this.count = lanesOf(images);
    this.pixels = pixels;
    this.noted = []; // lane, start, frequency, ...
    this.bits = new Float64Array(images * pixels); // spent on each pixel, to look at
  }

  take(image, pixel, frequencies, wanted) {
    let start = 0;
    for (let symbol = 0; symbol < wanted; symbol++) start += frequencies[symbol];
    this.noted.push(image % this.count, start, frequencies[wanted]);
    this.bits[image * this.pixels + pixel] += 16 - Math.log2(frequencies[wanted]);
    return wanted;
  }

  finish() {
    const states = new Uint32Array(this.count).fill(TOTAL);
    const words = [];
    for (let at = this.noted.length - 3; at >= 0; at -= 3) {
      const [lane, start, frequency] = this.noted.slice(at, at + 3);
      let state = states[lane];
      if (state >>> 16 >= frequency) {
        words.push(state % TOTAL);
        state >>>= 16;
      }
      states[lane] = Math.floor(state / frequency) * TOTAL + (state % frequency) + start;
    }
    const parts = [...states].map((state) => uintBytes(state, 4));
    return joined([...parts, ...words.reverse().map((word) => uintBytes(word, 2))]);
  }
}

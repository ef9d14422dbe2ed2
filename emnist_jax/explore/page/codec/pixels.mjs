// Pixels in reading order: what is coded of each, the same for reading and writing.

import { BINS, BIN_STARTS, COLUMNS, ROWS, placesOf } from "./model.mjs";
import { TOTAL } from "./lanes.mjs";

const BIN_OF = Array.from({ length: 256 }, (_, value) => BIN_STARTS.findLastIndex((s) => s <= value));
const INFORMATION = Array.from({ length: 4097 }, (_, k) => (k ? Math.floor(16 * k * Math.log2(k) + 0.5) : 0));

/**
 * Codes the images of a block.
 *
 * @param {PixelModel} model
 * @param {LaneReader|LaneWriter} coder
 * @param {{images: number, height: number, width: number}} shape
 * @param {number} maxError - how far decoded pixels may be off.
 * @param {?Uint8Array} wanted - the pixels to write; null where they are read.
 * @param {function(number, function): void} onRow - told each finished row, and a function that
 *   gives all pixels so far.
 * @returns {Uint8Array} what decoding gives, [images, height, width].
 */
export function codePixels(model, coder, { images, height, width }, maxError, wanted, onRow, lossy = false) {
  const stride = width + 2 * COLUMNS;
  const size = (height + ROWS) * stride;
  const padded = new Uint8Array(images * size);
  const hard = new Uint8Array(images);
  const bins = new Uint8Array(images);
  const fineWidth = model.fineHidden.outputs;
  const sums = new Int32Array(images * fineWidth);
  const cut = maxError ? spansOf(maxError) : null;

  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      const pixel = r * width + c;
      const place = (image) => image * size + (r + ROWS) * stride + c + COLUMNS;
      const value = (image) => (wanted ? wanted[image * height * width + pixel] : 0);
      for (let image = 0; image < images; image++) {
        const at = place(image);
        const above = at - stride;
        hard[image] = padded[at - 1] | padded[above - 1] | padded[above] | padded[above + 1];
        if (hard[image]) continue;
        model.look(padded, at, stride);
        hard[image] = coder.take(image, pixel, model.gate(r, c), +(value(image) > maxError));
      }
      for (let image = 0; image < images; image++) {
        if (!hard[image]) continue;
        model.look(padded, place(image), stride);
        const h = model.trunk(r, c);
        const frequencies = model.bins(h);
        const fine = model.fineSums(h);
        if (cut) {
          const below = massBelow(model, frequencies, fine);
          const spans = cheapestSpans(cut, below);
          const span = coder.take(image, pixel, spans.frequencies, spans.of[value(image)]);
          padded[place(image)] = lossy ? meanOf(spans, span, below) : spans.middles[span];
        } else {
          bins[image] = coder.take(image, pixel, frequencies, BIN_OF[value(image)]);
          sums.set(fine, image * fineWidth);
        }
      }
      for (let image = 0; image < images && !cut; image++) {
        if (!hard[image]) continue;
        const first = BIN_STARTS[bins[image]];
        const fine = sums.subarray(image * fineWidth, (image + 1) * fineWidth);
        const frequencies = model.places(fine, bins[image]);
        padded[place(image)] = first + coder.take(image, pixel, frequencies, value(image) - first);
      }
    }
    onRow(r, () => inner(padded, images, height, width));
  }
  return inner(padded, images, height, width);
}

function inner(padded, images, height, width) {
  const stride = width + 2 * COLUMNS;
  const pixels = new Uint8Array(images * height * width);
  for (let row = 0; row < images * height; row++) {
    const image = Math.floor(row / height);
    const at = (row + (image + 1) * ROWS) * stride + COLUMNS;
    pixels.set(padded.subarray(at, at + width), row * width);
  }
  return pixels;
}

/** For each phase, 1 first: where spans start, the span of each value, their middles. */
function spansOf(maxError) {
  const width = 2 * maxError + 1;
  return Array.from({ length: Math.min(width, 255 - maxError) }, (_, index) => {
    const starts = [0];
    for (let first = maxError + 1; first < 256; first += starts.length === 2 ? index + 1 : width)
      starts.push(first);
    const of = new Uint8Array(256);
    starts.forEach((first, span) => of.fill(span, first));
    const ends = [...starts.slice(1), 256];
    const middles = starts.map((first, span) => (span ? (first + ends[span] - 1) >> 1 : 0));
    return { starts, ends, of, middles };
  });
}

/** Sums of p_v of the values below each of 0..256. */
function massBelow(model, bins, fine) {
  const below = new Int32Array(257);
  for (let bin = 0, value = 0; bin < BINS; bin++) {
    const half = bins[bin] >> 1;
    const places = half ? model.places(fine, bin) : null; // else every p_v is 0
    for (let place = 0; place < placesOf(bin); place++, value++)
      below[value + 1] = below[value] + (places ? (half * (places[place] >> 1)) >> 14 : 0);
  }
  return below;
}

/** The mean of p_v over a span, rounded; its middle where every p_v is 0, 0 for span 0. */
function meanOf({ starts, ends, middles }, span, below) {
  const mass = below[ends[span]] - below[starts[span]];
  if (!span || !mass) return middles[span];
  let moment = 0;
  for (let value = starts[span]; value < ends[span]; value++)
    moment += value * (below[value + 1] - below[value]);
  return Math.floor((2 * moment + mass) / (2 * mass));
}

/** The phase with the least expected bits, and the frequencies of its spans. */
function cheapestSpans(phases, below) {
  let [best, highest] = [null, -1];
  const mass = ({ starts, ends }, span) => below[ends[span]] - below[starts[span]];
  for (const phase of phases) {
    let gain = 0;
    for (let span = 0; span < phase.starts.length; span++) gain += INFORMATION[mass(phase, span) >> 4];
    if (gain > highest) [best, highest] = [phase, gain];
  }
  const count = best.starts.length;
  const share = (span) => Math.floor((mass(best, span) * (TOTAL - count)) / TOTAL) + 1;
  const frequencies = best.starts.map((_, span) => share(span));
  const largest = frequencies.indexOf(Math.max(...frequencies));
  frequencies[largest] += TOTAL - frequencies.reduce((sum, frequency) => sum + frequency);
  return { frequencies, ...best };
}

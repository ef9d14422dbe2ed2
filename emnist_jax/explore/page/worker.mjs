// What computes, beside the page: tasks come as messages, answers and progress go back.

import { readAutoencoder, runLayers } from "./autoencoder.mjs";
import { check, equal, fromBase64, hex } from "./codec/bytes.mjs";
import { decodeBlock, encodeFile, openFile, upright } from "./codec/codec.mjs";
import { LATENT } from "./codec/container.mjs";
import { latentsOf } from "./codec/latents.mjs";
import { readModel } from "./codec/model.mjs";

const HELD_BLOCKS = 4;
const LARGEST_IMAGE = 2 ** 24; // pixels
const engine = {}; // what the page gave: {models, autoencoder, layers}, made when asked for
let file = null;
const held = new Map(); // decoded blocks of the file, newest last

async function model(name) {
  engine.read ??= {};
  return (engine.read[name] ??= await readModel(fromBase64(engine.models[name])));
}

async function layers(part) {
  engine.autoencoder ??= readAutoencoder(engine.layers, fromBase64(engine.weights));
  return (await engine.autoencoder)[part];
}

const tasks = {
  start: (given) => void Object.assign(engine, given),

  async encode({ pixels }) {
    return runLayers(await layers("encoder"), Float64Array.from(pixels, (v) => v / 255));
  },

  async decode({ latents }) {
    const decoder = await layers("decoder");
    return latents.map((one) => runLayers(decoder, one));
  },

  async compress({ pixels, size, maxError }) {
    const name = maxError === 0 ? "default" : maxError < 3 ? "near" : maxError < 6 ? "near4" : "coarse";
    const shape = { images: 1, height: size, width: size };
    return { name, ...(await encodeFile(await model(name), pixels, shape, maxError)) };
  },

  async open({ bytes }) {
    const models = await Promise.all(Object.keys(engine.models).map(model));
    file = await openFile(bytes, models);
    check(file.height * file.width <= LARGEST_IMAGE, "holds images too large to show here");
    if (file.mode === LATENT) {
      const ours = hex(file.tables.decoder) === engine.decoderDigest;
      check(ours, "holds latents of another autoencoder than this page's");
      check(file.height === 28 && file.width === 28, "is damaged: latents are of 28x28 images");
    }
    const { mode, images, height, width, blockImages, parameter } = file;
    return { mode, images, height, width, blockImages, parameter };
  },

  /** Pixels of images first..last-1 of the open file; what is there so far on the way. */
  async images({ first, last }, progress) {
    const size = file.height * file.width;
    const pixels = new Uint8Array((last - first) * size);
    const step = Math.max(1, file.height >> 3);
    for (const [number, block] of file.blocks.entries()) {
      const [from, to] = [Math.max(first, block.first), Math.min(last, block.first + block.images)];
      if (from >= to) continue;
      const put = (decoded) => {
        const part = decoded.subarray((from - block.first) * size, (to - block.first) * size);
        pixels.set(part, (from - first) * size);
      };
      const onRow = (row, soFar) => {
        if (row % step) return;
        put(soFar());
        progress({ share: row / file.height, pixels });
      };
      if (!held.has(number)) {
        held.set(number, await decodeBlock(file, number, onRow));
        if (held.size > HELD_BLOCKS) held.delete(held.keys().next().value);
      }
      const decoded = held.get(number);
      if (file.mode !== LATENT) {
        put(decoded);
        continue;
      }
      const decoder = await layers("decoder");
      for (let at = from; at < to; at++)
        pixels.set(picture(decoder, decoded, at - block.first), (at - first) * size);
    }
    return pixels;
  },
};

/** Pixels that a decoder makes of one image of a block of levels. */
function picture(decoder, levels, at) {
  const dimensions = file.tables.low.length;
  const [latent] = latentsOf(file.tables, levels.subarray(at * dimensions, (at + 1) * dimensions));
  return upright(file, Uint8Array.from(runLayers(decoder, latent), (value) => Math.floor(255 * value + 0.5)));
}

self.onmessage = async ({ data: { id, task, given } }) => {
  try {
    const result = await tasks[task](given, (progress) => self.postMessage({ id, progress }));
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: `${error.message}` });
  }
};

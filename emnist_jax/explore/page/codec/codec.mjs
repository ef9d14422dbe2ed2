// Whole files: docs/codec_format.md, versions 1 and 2, written from that page alone.

import { check, crc32, deflate, equal, hex, inflate } from "./bytes.mjs";
import { bunzip2 } from "./bzip2.mjs";
import { BZIP2, CODED, DEFLATE, LATENT, LOSSLESS, LOSSY, NEAR_LOSSLESS, RAW } from "./container.mjs";
import { packFile, parseFile, smallest } from "./container.mjs";
import { LaneReader, LaneWriter } from "./lanes.mjs";
import { decodeLevels, readTables } from "./latents.mjs";
import { readModel } from "./model.mjs";
import { codePixels } from "./pixels.mjs";

const silent = () => {};

/**
 * Opens a compressed file.
 *
 * @param {Uint8Array} bytes
 * @param {PixelModel[]} models - those at hand beside the one in the file.
 * @returns {Promise<object>} what `parseFile` returns, and pixelModel or tables.
 */
export async function openFile(bytes, models) {
  const head = parseFile(bytes);
  if (head.mode === LATENT) return { ...head, tables: await readTables(head) };
  const embedded = head.model && (await readModel(head.model));
  const pixelModel = embedded ?? models.find(({ digest }) => equal(digest, head.digest));
  check(pixelModel, `needs the pixel model ${hex(head.digest)}, which is not here`);
  check(equal(pixelModel.digest, head.digest), "is damaged: its model is another than it names");
  return { ...head, pixelModel };
}

/** 255 minus the pixels, if the images of the file are. */
export const upright = (file, pixels) => (file.inverted ? pixels.map((value) => 255 - value) : pixels);

/**
 * Decodes block `number` to pixels [images, height, width], or levels [images, dimensions].
 * `onRow` gets each row that is done and a function that gives the pixels so far.
 */
export async function decodeBlock(file, number, onRow = silent) {
  const block = file.blocks[number];
  const shape = { ...block, height: file.height, width: file.width };
  const { mode, tables } = file;
  const latent = mode === LATENT;
  const size = block.images * (latent ? tables.low.length : file.height * file.width);
  let decoded = block.bytes;
  if (block.kind === DEFLATE) decoded = await inflate(block.bytes, size);
  if (block.kind === BZIP2) decoded = unzipped(file, block.bytes, size);
  if (block.kind === CODED) {
    const told = (row, soFar) => onRow(row, () => upright(file, soFar()));
    const coder = new LaneReader(block.bytes, block.images);
    if (latent) decoded = decodeLevels(tables, coder, block.images);
    else decoded = codePixels(file.pixelModel, coder, shape, file.parameter, null, told, mode === LOSSY);
    if (!latent) coder.finish();
  }
  const sound = decoded.length === size && crc32(decoded) === block.checksum;
  check(sound, `is damaged: the checksum of block ${number} does not match`);
  return latent ? decoded : upright(file, decoded);
}

/** A byte that says what follows, 0 the block or 1 differences of rows; then bzip2. */
function unzipped({ mode, height, width }, bytes, size) {
  const kind = bytes[0];
  check(kind === 0 || (kind === 1 && mode !== LATENT), "is damaged: a block is of no known kind");
  const decoded = bunzip2(bytes.subarray(1), size);
  if (kind === 1)
    for (let at = width; at < size; at++)
      if (Math.floor(at / width) % height) decoded[at] += decoded[at - width]; // modulo 256
  return decoded;
}

/**
 * Compresses images into a file of one block.
 *
 * @param {PixelModel} model
 * @param {Uint8Array} pixels - [images, height, width].
 * @param {{images: number, height: number, width: number}} shape
 * @param {number} maxError - 0 for lossless, up to 127.
 * @returns {Promise<{bytes, decoded, bits}>} the file, what it decodes to, and the bits that
 *   the model spends on each pixel.
 */
export async function encodeFile(model, pixels, shape, maxError = 0) {
  const size = shape.height * shape.width;
  const coder = new LaneWriter(shape.images, size);
  const decoded = codePixels(model, coder, shape, maxError, pixels, silent);
  const forms = [
    { kind: CODED, bytes: coder.finish() },
    { kind: DEFLATE, bytes: await deflate(decoded) },
    { kind: RAW, bytes: decoded },
  ];
  const block = { ...smallest(forms, shape.images * size), checksum: crc32(decoded) };
  const mode = maxError ? NEAR_LOSSLESS : LOSSLESS;
  const head = { ...shape, mode, digest: model.digest, blockImages: shape.images, parameter: maxError };
  return { bytes: packFile({ ...head, blocks: [block] }), decoded, bits: coder.bits };
}

// The file around the blocks: head, index and checksums.

import { ByteReader, check, crc32, equal, joined, uintBytes, varintBytes } from "./bytes.mjs";

export const [LOSSLESS, NEAR_LOSSLESS, LATENT] = [0, 1, 2];
export const [RAW, DEFLATE, CODED] = [0, 1, 2];
export const MODE_NAMES = ["lossless", "near-lossless", "latent"];
const MAGIC = [0x45, 0x4a, 0x58, 0x31]; // EJX1
const [TRAILING_AXIS, EMBEDDED] = [0x40, 0x80];
const BLOCK_PIXELS = 2 ** 22;
const CODED_PIXELS = 2 ** 14; // of an image
const PIXELS_A_BYTE = 4096;
const LARGEST_SIDE = 65536;

/**
 * Head and index of a file.
 *
 * @returns {object} mode, digest, images, height, width, blockImages, parameter,
 *   trailingAxis, model (bytes or null), blocks: [{kind, checksum, images, bytes}].
 */
export function parseFile(bytes) {
  const reader = new ByteReader(bytes);
  check(bytes.length >= 4 && equal(bytes.subarray(0, 3), MAGIC.slice(0, 3)), "is no .ejx file");
  check(bytes[3] === MAGIC[3], "is of another version of the format than this page reads");
  reader.take(4);
  const flags = reader.uint(1);
  const mode = flags & ~(TRAILING_AXIS | EMBEDDED);
  check(mode in MODE_NAMES, "uses a feature of the format that this page does not know");
  const head = { mode, trailingAxis: (flags & TRAILING_AXIS) > 0, digest: reader.take(4) };
  for (const name of ["images", "height", "width", "blockImages"]) head[name] = reader.varint();
  head.parameter = mode === LOSSLESS ? 0 : reader.varint();
  const modelLength = flags & EMBEDDED ? reader.varint() : 0;
  checkHead(head);
  const count = Math.ceil(head.images / head.blockImages);
  check(count * 5 <= bytes.length, "is damaged: it has no room for its blocks");
  const index = Array.from({ length: count }, (_, number) => {
    const entry = reader.varint();
    const images = Math.min(head.blockImages, head.images - number * head.blockImages);
    const block = { kind: entry % 4, length: Math.floor(entry / 4), images };
    return { ...block, checksum: reader.uint(4) };
  });
  const found = crc32(bytes.subarray(0, reader.at));
  check(reader.uint(4) === found, "is damaged: the checksum of its head does not match");
  head.model = flags & EMBEDDED ? reader.take(modelLength) : null;
  head.blocks = index.map(({ length, ...block }) => ({ ...block, bytes: reader.take(length) }));
  check(reader.at === bytes.length, "is damaged: something follows its last block");
  head.blocks.forEach((block) => checkBlock(head, block));
  return head;
}

function checkHead({ mode, height, width, blockImages, parameter }) {
  const wrong = "is damaged: sizes out of range";
  for (const side of [height, width]) check(side >= 1 && side <= LARGEST_SIDE, wrong);
  const most = Math.max(1, Math.floor(BLOCK_PIXELS / (height * width)));
  check(blockImages >= 1 && blockImages <= most, wrong);
  const largest = [0, 127, 8][mode];
  check(parameter >= Math.min(1, largest) && parameter <= largest, wrong);
}

function checkBlock(head, { kind, images, bytes }) {
  const pixels = head.height * head.width;
  check(kind <= CODED, "uses a way of storing blocks that this page does not know");
  const small = head.mode === LATENT || pixels <= CODED_PIXELS;
  check(kind !== CODED || small, "is damaged: images this large are not coded");
  check(images * pixels <= PIXELS_A_BYTE * bytes.length, "is damaged: a block is too short");
}

/** The smallest allowed form of a block: {kind, bytes}; `forms` are tried in order. */
export function smallest(forms, pixels) {
  const allowed = forms.filter(({ bytes }) => pixels <= PIXELS_A_BYTE * bytes.length);
  return allowed.reduce((a, b) => (b.bytes.length < a.bytes.length ? b : a));
}

/** A file without an embedded model; blocks are [{kind, checksum, bytes}]. */
export function packFile({ mode, digest, images, height, width, blockImages, parameter, blocks }) {
  const numbers = [images, height, width, blockImages, ...(mode === LOSSLESS ? [] : [parameter])];
  const head = [...MAGIC, mode, ...digest, ...numbers.flatMap(varintBytes)];
  for (const { kind, bytes, checksum } of blocks)
    head.push(...varintBytes(bytes.length * 4 + kind), ...uintBytes(checksum, 4));
  head.push(...uintBytes(crc32(head), 4));
  return joined([head, ...blocks.map(({ bytes }) => bytes)]);
}

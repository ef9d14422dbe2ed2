// The file around the blocks: head, index and checksums.

import { ByteReader, check, crc32, equal, joined, uintBytes, varintBytes } from "./bytes.mjs";

export const [LOSSLESS, NEAR_LOSSLESS, LATENT, LOSSY] = [0, 1, 2, 3]; // the last from version 2 on
export const [RAW, DEFLATE, CODED, BZIP2] = [0, 1, 2, 3];
export const MODE_NAMES = ["lossless", "near-lossless", "latent", "lossy"];
const MAGIC = [0x45, 0x4a, 0x58]; // EJX, then the version: 1 or 2
const [ONE, TWO] = [0x31, 0x32];
const [TRAILING_AXIS, EMBEDDED] = [0x40, 0x80];
const [INVERTED, COUNTED, LABELS, NAMES, TURNED] = [1, 2, 4, 8, 16]; // features of version 2
const BLOCK_PIXELS = 2 ** 22;
const CODED_PIXELS = 2 ** 14; // of an image
const PIXELS_A_BYTE = 4096;
const LARGEST_SIDE = 65536;

/**
 * Head and index of a file.
 *
 * @returns {object} mode, digest, images, height, width, blockImages, parameter,
 *   trailingAxis, inverted, turned, model (bytes or null), notes (the packed labels and names) and
 *   blocks: [{kind, checksum, first, images, bytes}].
 */
export function parseFile(bytes) {
  const reader = new ByteReader(bytes);
  check(bytes.length >= 4 && equal(reader.take(3), MAGIC), "is no .ejx file");
  const version = reader.uint(1);
  const known = version === ONE || version === TWO;
  check(known, "is of another version of the format than this page reads");
  const flags = reader.uint(1);
  const features = version === TWO ? reader.uint(1) : 0;
  const mode = flags & ~(TRAILING_AXIS | EMBEDDED);
  const turned = mode === LATENT ? TURNED : 0;
  const unknown = features & ~(INVERTED | COUNTED | LABELS | NAMES | turned);
  const later = mode === LOSSY && version === ONE;
  check(mode in MODE_NAMES && !unknown && !later, "uses a feature of the format that this page does not know");
  const head = { mode, trailingAxis: (flags & TRAILING_AXIS) > 0, inverted: (features & INVERTED) > 0 };
  head.turned = (features & TURNED) > 0;
  head.digest = reader.take(4);
  for (const name of ["images", "height", "width", "blockImages"]) head[name] = reader.varint();
  head.parameter = mode === LOSSLESS ? 0 : reader.varint();
  const modelLength = flags & EMBEDDED ? reader.varint() : 0;
  const notesLength = features & (LABELS | NAMES) ? reader.varint() : 0;
  const counted = (features & COUNTED) > 0;
  const count = counted ? reader.varint() : Math.ceil(head.images / head.blockImages);
  checkHead(head);
  const index = parseIndex(reader, head, count, counted);
  const largest = version === TWO ? BZIP2 : CODED;
  const found = crc32(bytes.subarray(0, reader.at));
  check(reader.uint(4) === found, "is damaged: the checksum of its head does not match");
  head.model = flags & EMBEDDED ? reader.take(modelLength) : null;
  head.notes = reader.take(notesLength);
  head.blocks = index.map(({ length, ...block }) => ({ ...block, bytes: reader.take(length) }));
  check(reader.at === bytes.length, "is damaged: something follows its last block");
  head.blocks.forEach((block) => checkBlock(head, block, largest));
  return head;
}

function parseIndex(reader, { images, blockImages }, count, counted) {
  check(count * 5 <= reader.bytes.length, "is damaged: it has no room for its blocks");
  let first = 0;
  const index = Array.from({ length: count }, () => {
    const held = counted ? reader.varint() : Math.min(blockImages, images - first);
    check(held >= 1 && held <= blockImages, "is damaged: sizes out of range");
    const entry = reader.varint();
    const block = { kind: entry % 4, length: Math.floor(entry / 4), first, images: held };
    first += held;
    return { ...block, checksum: reader.uint(4) };
  });
  check(first === images, "is damaged: its blocks hold another number of images");
  return index;
}

function checkHead({ mode, height, width, blockImages, parameter }) {
  const wrong = "is damaged: sizes out of range";
  for (const side of [height, width]) check(side >= 1 && side <= LARGEST_SIDE, wrong);
  const most = Math.max(1, Math.floor(BLOCK_PIXELS / (height * width)));
  check(blockImages >= 1 && blockImages <= most, wrong);
  const largest = [0, 127, 8, 127][mode];
  check(parameter >= Math.min(1, largest) && parameter <= largest, wrong);
}

function checkBlock(head, { kind, images, bytes }, largest) {
  const pixels = head.height * head.width;
  check(kind <= largest, "uses a way of storing blocks that this page does not know");
  const small = head.mode === LATENT || pixels <= CODED_PIXELS;
  check(kind !== CODED || small, "is damaged: images this large are not coded");
  check(images * pixels <= PIXELS_A_BYTE * bytes.length, "is damaged: a block is too short");
}

/** The smallest allowed form of a block: {kind, bytes}; `forms` are tried in order. */
export function smallest(forms, pixels) {
  const allowed = forms.filter(({ bytes }) => pixels <= PIXELS_A_BYTE * bytes.length);
  return allowed.reduce((a, b) => (b.bytes.length < a.bytes.length ? b : a));
}

/** A file of version 1 without an embedded model; blocks are [{kind, checksum, bytes}]. */
export function packFile({ mode, digest, images, height, width, blockImages, parameter, blocks }) {
  const numbers = [images, height, width, blockImages, ...(mode === LOSSLESS ? [] : [parameter])];
  const head = [...MAGIC, ONE, mode, ...digest, ...numbers.flatMap(varintBytes)];
  for (const { kind, bytes, checksum } of blocks)
    head.push(...varintBytes(bytes.length * 4 + kind), ...uintBytes(checksum, 4));
  head.push(...uintBytes(crc32(head), 4));
  return joined([head, ...blocks.map(({ bytes }) => bytes)]);
}

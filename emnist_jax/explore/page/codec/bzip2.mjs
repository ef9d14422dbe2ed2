// Reads bzip2 streams.

import { check } from "./bytes.mjs";

const LONGEST = 20; // bits of a code
const GROUP = 50; // symbols coded with one table

const sound = (holds) => check(holds, "is damaged: a bzip2 stream is not sound");

class BitReader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0; // in bits, the highest of a byte first
  }

  bits(count) {
    let value = 0;
    for (; count > 0; count--, this.at++) {
      sound(this.at < 8 * this.bytes.length);
      value = value * 2 + ((this.bytes[this.at >> 3] >> (7 - (this.at & 7))) & 1);
    }
    return value;
  }

  /** How many ones come before a zero. */
  unary(most) {
    let count = 0;
    while (this.bits(1)) sound(++count < most);
    return count;
  }
}

/** The bytes of one bzip2 stream, which must be `size`. Its caller checks a CRC of them. */
export function bunzip2(bytes, size) {
  const reader = new BitReader(bytes);
  const output = new Uint8Array(size);
  sound(reader.bits(24) === 0x425a68); // BZh
  const level = reader.bits(8) - 48;
  sound(level >= 1 && level <= 9);
  let length = 0;
  for (;;) {
    const magic = [reader.bits(24), reader.bits(24)];
    reader.bits(32); // its CRC
    if (magic[0] === 0x177245 && magic[1] === 0x385090) break;
    sound(magic[0] === 0x314159 && magic[1] === 0x265359 && reader.bits(1) === 0);
    const origin = reader.bits(24);
    length = expandRuns(untransform(readBlock(reader, level * 100000), origin), output, length);
  }
  sound(length === size && Math.ceil(reader.at / 8) === bytes.length);
  return output;
}

/** The last column of the sorted rotations: Huffman codes, runs of zeros, move to front. */
function readBlock(reader, most) {
  const present = Array.from({ length: 16 }, () => reader.bits(1));
  const front = [];
  for (let high = 0; high < 16; high++)
    for (let low = 0; present[high] && low < 16; low++) if (reader.bits(1)) front.push(16 * high + low);
  sound(front.length > 0);
  const tables = reader.bits(3);
  const groups = reader.bits(15);
  sound(tables >= 2 && tables <= 6 && groups > 0);
  const order = Array.from({ length: tables }, (_, table) => table);
  const selectors = Array.from({ length: groups }, () => moveToFront(order, reader.unary(tables)));
  const codes = order.map(() => readCode(reader, front.length + 2));

  const end = front.length + 1;
  const column = [];
  let [run, weight] = [0, 1];
  for (let symbols = 0; ; symbols++) {
    sound(symbols < GROUP * groups);
    const symbol = decodeSymbol(reader, codes[selectors[Math.floor(symbols / GROUP)]]);
    if (symbol <= 1) {
      run += weight << symbol; // digits 1 and 2, the lowest first
      weight *= 2;
      sound(run <= most);
      continue;
    }
    sound(column.length + run + 1 <= most + 1);
    for (; run > 0; run--) column.push(front[0]);
    weight = 1;
    if (symbol === end) return column;
    column.push(moveToFront(front, symbol - 1));
  }
}

function moveToFront(list, index) {
  const [value] = list.splice(index, 1);
  list.unshift(value);
  return value;
}

/** A canonical code: by length, the first code, and the symbols in their order. */
function readCode(reader, symbols) {
  let length = reader.bits(5);
  const lengths = Array.from({ length: symbols }, () => {
    while (reader.bits(1)) length += reader.bits(1) ? -1 : 1;
    sound(length >= 1 && length <= LONGEST);
    return length;
  });
  let first = 0;
  return Array.from({ length: LONGEST + 1 }, (_, bits) => {
    const members = lengths.flatMap((own, symbol) => (bits && own === bits ? [symbol] : []));
    const row = { first, members };
    first = (first + members.length) * 2;
    return row;
  });
}

function decodeSymbol(reader, code) {
  let value = 0;
  for (let bits = 1; bits <= LONGEST; bits++) {
    value = value * 2 + reader.bits(1);
    const { first, members } = code[bits];
    if (value - first < members.length) return members[value - first];
  }
  return sound(false);
}

/** Undoes the Burrows-Wheeler transform. */
function untransform(column, origin) {
  sound(origin < column.length);
  const starts = new Uint32Array(257);
  for (const byte of column) starts[byte + 1]++;
  for (let byte = 0; byte < 256; byte++) starts[byte + 1] += starts[byte];
  const next = new Uint32Array(column.length);
  column.forEach((byte, at) => (next[starts[byte]++] = at));
  let at = next[origin];
  return column.map(() => {
    const byte = column[at];
    at = next[at];
    return byte;
  });
}

/** After four equal bytes comes how often the byte is repeated. Returns the new length. */
function expandRuns(bytes, output, length) {
  let [same, last] = [0, -1];
  for (const byte of bytes) {
    if (same === 4) {
      sound(length + byte <= output.length);
      output.fill(last, length, length + byte);
      length += byte;
      same = 0;
      last = -1;
      continue;
    }
    sound(length < output.length);
    output[length++] = byte;
    same = byte === last ? same + 1 : 1;
    last = byte;
  }
  return length;
}

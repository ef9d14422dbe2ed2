// Reading and writing bytes: varints, CRC-32, SHA-256, zlib streams.

export class FormatError extends Error {}

export function check(holds, message) {
  if (!holds) throw new FormatError(message);
}

/** Reads little-endian numbers from a Uint8Array; past its end the file is damaged. */
export class ByteReader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(count) {
    check(this.at + count <= this.bytes.length, "is damaged: it ends too early");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  uint(size) {
    return this.take(size).reduceRight((value, byte) => value * 256 + byte, 0);
  }

  /** Seven bits a byte, lowest first; the top bit says that another byte follows. */
  varint() {
    let value = 0;
    for (let scale = 1; scale < 2 ** 63; scale *= 128) {
      const byte = this.uint(1);
      value += (byte & 127) * scale;
      check(value <= Number.MAX_SAFE_INTEGER, "is damaged: a number is too large");
      if (byte < 128) return value;
    }
    throw new FormatError("is damaged: a number does not end");
  }
}

/** `value` in `size` little-endian bytes. */
export function uintBytes(value, size) {
  return Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) % 256);
}

export function varintBytes(value) {
  const bytes = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return [...bytes, value];
}

export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export const equal = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);

export const hex = (bytes) =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++)
    value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((p) => n % p)) PRIMES.push(n);
const fraction = (x) => Math.floor((x - Math.floor(x)) * 2 ** 32) | 0;
const SHA_ROUNDS = PRIMES.map((prime) => fraction(Math.cbrt(prime)));
const SHA_START = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));

/** SHA-256 (FIPS 180-4); the browser's own one is not there on every page. */
export function sha256(bytes) {
  const padded = new Uint8Array((((bytes.length + 8) >> 6) + 1) << 6);
  padded.set(bytes);
  padded[bytes.length] = 128;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  const state = [...SHA_START];
  const w = new Int32Array(64);
  for (let start = 0; start < padded.length; start += 64) {
    for (let i = 0; i < 64; i++) {
      if (i < 16) {
        w[i] = view.getInt32(start + 4 * i);
        continue;
      }
      const s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
      const first = (h + s1 + ((e & f) ^ (~e & g)) + SHA_ROUNDS[i] + w[i]) | 0;
      const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [a, b, c, d, e, f, g, h] = [first + second | 0, a, b, c, (d + first) | 0, e, f, g];
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] = (state[i] + value) | 0));
  }
  return Uint8Array.from(state.flatMap((x) => uintBytes(x >>> 0, 4).reverse()));
}

const PIECE = 65536; // bytes

/** A stream of pieces. That of a Blob fails in WebKit's workers if the page is a local file. */
function streamOf(bytes) {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at < bytes.length) controller.enqueue(bytes.slice(at, (at += PIECE)));
      else controller.close();
    },
  });
}

/** Inflates a zlib stream that must give `size` bytes, and never holds many more. */
export async function inflate(bytes, size) {
  const inflated = streamOf(bytes).pipeThrough(new DecompressionStream("deflate"));
  const reader = inflated.getReader();
  const parts = [];
  let length = 0;
  try {
    for (let part; !(part = await reader.read()).done; parts.push(part.value)) {
      length += part.value.length;
      if (length > size) break;
    }
  } catch {
    length = -1;
  }
  if (length !== size) reader.cancel().catch(() => {});
  check(length === size, "is damaged: a deflated part is of another length");
  return joined(parts);
}

export async function deflate(bytes) {
  const packed = streamOf(bytes).pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

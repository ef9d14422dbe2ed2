// What tests/test_explore_codec.py asks of the format's implementation in JavaScript:
//   node format_in_javascript.mjs CODEC_FOLDER WORK_FOLDER < jobs.json > answers.json
import fs from "node:fs";
import path from "node:path";

const [codecFolder, work] = process.argv.slice(2);
const load = (name) => import(path.join(codecFolder, name));
const { FormatError, equal, hex, sha256, uintBytes, varintBytes } = await load("bytes.mjs");
const { bunzip2 } = await load("bzip2.mjs");
const { decodeBlock, encodeFile, openFile } = await load("codec.mjs");
const { packFile, parseFile } = await load("container.mjs");
const { LaneReader, LaneWriter } = await load("lanes.mjs");
const { latentsOf } = await load("latents.mjs");
const { readModel } = await load("model.mjs");
const read = (name) => new Uint8Array(fs.readFileSync(path.join(work, name)));
const write = (name, array) => fs.writeFileSync(path.join(work, name), array);

const jobs = {
  async decode({ file, out, models = [] }) {
    const opened = await openFile(read(file), await Promise.all(models.map((name) => readModel(read(name)))));
    const parts = [];
    let rows = 0;
    for (const number of opened.blocks.keys()) parts.push(await decodeBlock(opened, number, () => rows++));
    const arrays = opened.tables ? parts.flatMap((part) => latentsOf(opened.tables, part)) : parts;
    write(out, Buffer.concat(arrays.map((a) => Buffer.from(a.buffer, a.byteOffset, a.byteLength))));
    return { rows, images: opened.images, kinds: opened.blocks.map(({ kind }) => kind) };
  },

  async encode({ images, shape, model, maxError, out }) {
    const found = await encodeFile(await readModel(read(model)), read(images), shape, maxError);
    write(out, found.bytes);
    return { bits: found.bits.reduce((a, b) => a + b), decoded: hex(sha256(found.decoded)) };
  },

  /** Each file with one byte changed or some missing must be refused by our own error. */
  async damage({ file, changes }) {
    const whole = read(file);
    const escaped = [];
    for (const [at, mask] of changes) {
      const bytes = mask ? whole.map((byte, i) => (i === at ? byte ^ mask : byte)) : whole.slice(0, at);
      try {
        const opened = await openFile(bytes, []);
        for (const number of opened.blocks.keys()) await decodeBlock(opened, number);
        escaped.push([at, mask]);
      } catch (error) {
        if (!(error instanceof FormatError)) escaped.push([at, mask, String(error)]);
      }
    }
    return escaped;
  },

  /** Also: what is cut off or of another size is refused. */
  async bunzip2({ file, size, digest }) {
    const bytes = read(file);
    const refused = ([part, length]) => {
      try {
        bunzip2(part, length);
        return false;
      } catch (error) {
        return error instanceof FormatError;
      }
    };
    const wrong = [[bytes, size + 1], [bytes, size - 1], [bytes.slice(0, -1), size]];
    return hex(sha256(bunzip2(bytes, size))) === digest && wrong.every(refused);
  },

  async message({ bytes }) {
    try {
      return String(await openFile(Uint8Array.from(bytes), []));
    } catch (error) {
      return `${error.constructor.name}: ${error.message}`;
    }
  },

  async vectors() {
    const blocks = [
      { kind: 2, bytes: new Uint8Array(100), checksum: 0x01020304 },
      { kind: 0, bytes: new Uint8Array(784), checksum: 5 },
    ];
    const head = { mode: 0, digest: uintBytes(0x64636261, 4), images: 2, height: 28, width: 28 };
    const file = packFile({ ...head, blockImages: 1, parameter: 0, blocks });
    const writer = new LaneWriter(32, 1);
    const steps = [
      [[32768, 32768], 0, [40000, 25536], 1],
      [[65536], 0, [10, 1, 65525], 1],
      [[65535, 1], 1, [65536], 0],
    ];
    for (const [zero, first, one, second] of steps) {
      writer.take(0, 0, zero, first);
      writer.take(1, 0, one, second);
    }
    const coded = writer.finish();
    const reader = new LaneReader(coded, 32);
    const back = steps.map(([zero, , one]) => [reader.take(0, 0, zero), reader.take(1, 0, one)]);
    reader.finish();
    return {
      varints: [0, 300].map((value) => hex(Uint8Array.from(varintBytes(value)))),
      head: hex(file.subarray(0, file.length - 884)),
      parsed: equal(parseFile(file).digest, head.digest),
      coded: hex(coded),
      back,
    };
  },
};

const answers = [];
for (const { job, ...options } of JSON.parse(fs.readFileSync(0)))
  answers.push(await jobs[job](options));
process.stdout.write(JSON.stringify(answers));

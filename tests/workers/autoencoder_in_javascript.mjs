// What tests/test_explore.py asks of the page's autoencoder:
//   node autoencoder_in_javascript.mjs PAGE_FOLDER WORK_FOLDER < jobs.json > answers.json
import fs from "node:fs";
import path from "node:path";

const [pageFolder, work] = process.argv.slice(2);
const { readAutoencoder, runLayers } = await import(path.join(pageFolder, "autoencoder.mjs"));
const { rasterise } = await import(path.join(pageFolder, "drawing.mjs"));
const read = (name) => fs.readFileSync(path.join(work, name));

const jobs = {
  async reconstruct({ layers, pixels }) {
    const { encoder, decoder } = await readAutoencoder(layers, new Uint8Array(read("weights")));
    const latents = runLayers(encoder, pixels.map((value) => value / 255));
    return { latents: [...latents], image: [...runLayers(decoder, latents)] };
  },
  draw: ({ strokes }) => [...rasterise(strokes)],
};
const asked = JSON.parse(fs.readFileSync(0));
const answers = await Promise.all(asked.map(({ job, ...options }) => jobs[job](options)));
process.stdout.write(JSON.stringify(answers));

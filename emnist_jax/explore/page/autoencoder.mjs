// The run's autoencoder: 3x3 convolutions and dense layers, sums in double precision.

import { ByteReader, inflate } from "./codec/bytes.mjs";

const ACTIVATIONS = {
  linear: (x) => x,
  relu: (x) => Math.max(x, 0),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};

/**
 * Reads what `weights.py` wrote: for each layer its kernel as int16, a float32 scale for
 * each output, then its bias as float32; even bytes first, then odd ones, deflated.
 *
 * @returns {Promise<{encoder: object[], decoder: object[]}>} layers in order.
 */
export async function readAutoencoder({ encoder, decoder }, packed) {
  const lengths = [...encoder, ...decoder].map((layer) => 2 * kernelLength(layer) + 8 * layer.kernel.at(-1));
  const half = lengths.reduce((a, b) => a + b) / 2;
  const planes = await inflate(packed, 2 * half);
  const reader = new ByteReader(Uint8Array.from(planes, (_, i) => planes[(i >> 1) + (i & 1) * half]));
  const take = (type, length) => new type(reader.take(type.BYTES_PER_ELEMENT * length).slice().buffer);
  const read = (layer) => {
    const outputs = layer.kernel.at(-1);
    const integers = take(Int16Array, kernelLength(layer));
    const scale = take(Float32Array, outputs);
    const kernel = Float32Array.from(integers, (value, i) => value * scale[i % outputs]);
    return { ...layer, weights: kernel, bias: take(Float32Array, outputs) };
  };
  return { encoder: encoder.map(read), decoder: decoder.map(read) };
}

const kernelLength = ({ kernel }) => kernel.reduce((a, b) => a * b);

/** Runs layers on one input. */
export function runLayers(layers, input) {
  return layers.reduce((x, layer) => {
    const sums = layer.kind === "dense" ? dense(layer, x) : convolve(layer, x);
    const activation = ACTIVATIONS[layer.activation];
    return sums.map((sum, i) => activation(sum + layer.bias[i % layer.bias.length]));
  }, Float64Array.from(input));
}

function dense({ kernel: [inputs, outputs], weights }, x) {
  const sums = new Float64Array(outputs);
  for (let i = 0; i < inputs; i++) add(sums, 0, weights, i * outputs, outputs, x[i]);
  return sums;
}

/**
 * A 3x3 convolution, or a transposed one, of stride 1 or 2, with `SAME` padding as in JAX:
 * every input pixel is added to the output pixels that it reaches; most inputs are 0.
 */
function convolve({ kernel: [, , inputs, outputs], kind, stride, size, weights }, x) {
  const transposed = kind === "conv_transpose";
  const side = transposed ? size * stride : size / stride;
  const sums = new Float64Array(side * side * outputs);
  // Output of input i through tap t along an axis; none if it is not whole.
  const reach = (i, t) => (transposed ? i * stride - t + stride : (i - t + (stride === 1)) / stride);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const from = (row * size + column) * inputs;
      for (let tap = 0; tap < 9; tap++) {
        const [r, c] = [reach(row, Math.floor(tap / 3)), reach(column, tap % 3)];
        if (![r, c].every((at) => Number.isInteger(at) && at >= 0 && at < side)) continue;
        const to = (r * side + c) * outputs;
        for (let i = 0; i < inputs; i++)
          add(sums, to, weights, (tap * inputs + i) * outputs, outputs, x[from + i]);
      }
    }
  }
  return sums;
}

function add(sums, to, weights, from, count, value) {
  if (value === 0) return;
  for (let o = 0; o < count; o++) sums[to + o] += value * weights[from + o];
}

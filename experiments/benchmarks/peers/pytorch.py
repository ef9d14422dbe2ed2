"""PyTorch, on CUDA where that is: channels_last, fused Adam, no gradients where none
are needed; on the CPU oneDNN and all cores. bfloat16 is autocast."""

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emnist_jax.models import decoders, encoder
from experiments.benchmarks.peers.protocol import Run, serve


def make_encoder() -> nn.Module:
    """The encoder of all models."""
    layers, channels = [], 1
    for features, stride in encoder.LAYERS:
        layers += [nn.Conv2d(channels, features, 3, stride, padding=1), nn.ReLU()]
        channels = features
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(14 * 14 * channels, 32))


class Decoder(nn.Module):
    """One of the decoders."""

    def __init__(self, upsampling_layer: int):
        super().__init__()
        self.dense = nn.Linear(32, 14 * 14 * 64)
        layers, channels = [], 64
        for number, features in enumerate((*decoders.FEATURES, 1), start=1):
            stride = 2 if number == upsampling_layer else 1
            layers.append(
                nn.ConvTranspose2d(
                    channels,
                    features,
                    3,
                    stride,
                    padding=1,
                    output_padding=stride - 1,
                )
            )
            layers.append(nn.ReLU() if features > 1 else nn.Sigmoid())
            channels = features
        self.layers = nn.Sequential(*layers)

    def forward(self, z):
        """[B, 32] to [B, 1, 28, 28]."""
        x = functional.relu(self.dense(z)).view(-1, 64, 14, 14)
        return self.layers(x.contiguous(memory_format=torch.channels_last))


def build(
    decoder: str, images: np.ndarray, latents: np.ndarray, dtype: str = "float32"
) -> dict[str, Run]:
    """The measures of `serve`."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")  # TF32, which JAX takes too
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    wait = torch.cuda.synchronize if cuda else lambda: None
    layout = dict(memory_format=torch.channels_last, device=device)
    rough = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    x = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255))
    x, z = x.to(**layout), torch.from_numpy(latents).to(device)
    encode = make_encoder().to(**layout)
    decode = Decoder(decoders.make_decoder(decoder).upsampling_layer).to(**layout)
    parameters = [*encode.parameters(), *decode.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def train(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            with rough:
                outputs = decode(encode(x))
            functional.mse_loss(outputs.float(), x).backward()
            optimizer.step()
        wait()

    def half(module: nn.Module, batch: torch.Tensor) -> Run:
        def run(count: int) -> None:
            with torch.inference_mode(), rough:
                for _ in range(count):
                    module(batch)
            wait()

        return run

    return {"train": train, "encode": half(encode, x), "decode": half(decode, z)}


if __name__ == "__main__":
    serve(build, {"torch": torch.__version__})

"""Keras 3 on TensorFlow, its loops compiled with `tf.function`."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from emnist_jax.models import decoders, encoder
from experiments.benchmarks.peers.protocol import Run, serve


def make_encoder() -> keras.Model:
    """The encoder of all models."""
    convolutions = [
        layers.Conv2D(features, 3, strides=stride, padding="same", activation="relu")
        for features, stride in encoder.LAYERS
    ]
    ends = keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(32)
    return keras.Sequential([ends[0], *convolutions, *ends[1:]])


def make_decoder(upsampling_layer: int) -> keras.Model:
    """One of the decoders."""
    chain = [
        keras.Input((32,)),
        layers.Dense(14 * 14 * 64, activation="relu"),
        layers.Reshape((14, 14, 64)),
    ]
    for number, features in enumerate((*decoders.FEATURES, 1), start=1):
        chain.append(
            layers.Conv2DTranspose(
                features,
                3,
                strides=2 if number == upsampling_layer else 1,
                padding="same",
                activation="relu" if features > 1 else "sigmoid",
            )
        )
    return keras.Sequential(chain)


def build(decoder: str, images: np.ndarray, latents: np.ndarray) -> dict[str, Run]:
    """The measures of `serve`."""
    x = tf.constant(images / 255, tf.float32)
    z = tf.constant(latents)
    encode = make_encoder()
    decode = make_decoder(decoders.make_decoder(decoder).upsampling_layer)
    model = keras.Sequential([encode, decode])
    model.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)

    def train(count: int) -> None:
        for _ in range(count):
            model.train_on_batch(x, x)

    def half(module: keras.Model, batch: tf.Tensor) -> Run:
        function = tf.function(lambda batch: module(batch, training=False))

        def run(count: int) -> None:
            for _ in range(count):
                function(batch).numpy()

        return run

    return {"train": train, "encode": half(encode, x), "decode": half(decode, z)}


if __name__ == "__main__":
    serve(build, {"keras": keras.__version__, "tensorflow": tf.__version__})

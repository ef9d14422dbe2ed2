"""Encoder and decoder as ONNX graphs, node by node.

jax2onnx, which would do it from the traced program, holds Orbax back to versions before
ours; these two graphs are a dozen nodes.
"""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.models.decoders import FEATURES, Decoder
from emnist_jax.models.encoder import LAYERS, Encoder

if TYPE_CHECKING:
    from emnist_jax.runs.run import Run

OPSET = 17
_TOLERANCE = 1e-5


class _Graph:
    """Nodes in order, each with the output of the one before as its first input."""

    def __init__(self, value: str):
        self.nodes, self.parameters, self.value = [], [], value

    def add(self, kind: str, *arrays: np.ndarray, **attributes: Any) -> None:
        from onnx import helper, numpy_helper

        inputs, output = [self.value], f"{kind}{len(self.nodes)}_{self.value[:1]}"
        for number, array in enumerate(arrays):
            inputs.append(f"{output}_{number}")
            array = np.ascontiguousarray(array)
            self.parameters.append(numpy_helper.from_array(array, inputs[-1]))
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.value = output

    def reshape(self, *shape: int) -> None:
        self.add("Reshape", np.array(shape, np.int64))

    def dense(self, params: dict) -> None:
        self.add("Gemm", *(np.asarray(params[k]) for k in ("kernel", "bias")))


def _encode(graph: _Graph, encoder: Encoder, params: dict) -> None:
    height, width = encoder.image_size
    graph.reshape(-1, 1, height, width)  # NHWC and NCHW are the same for one channel
    for number, (_, stride) in enumerate(LAYERS, start=1):
        layer = params[f"conv{number}"]
        kernel = np.transpose(layer["kernel"], (3, 2, 0, 1))
        # SAME, as XLA pads: the odd one of stride 2 behind.
        pads = [1, 1, 1, 1] if stride == 1 else [0, 0, 1, 1]
        bias = np.asarray(layer["bias"])
        graph.add("Conv", kernel, bias, strides=[stride, stride], pads=pads)
        graph.add("Relu")
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.reshape(-1, len(params["latent"]["kernel"]))
    graph.dense(params["latent"])
    if encoder.latent_activation == "relu":
        graph.add("Relu")


def _decode(graph: _Graph, decoder: Decoder, params: dict) -> None:
    height, width = (side // 2 for side in decoder.image_size)
    graph.dense(params["dense"])
    graph.add("Relu")
    graph.reshape(-1, height, width, 64)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    names = [f"conv_transpose{number + 1}" for number in range(len(FEATURES))]
    for number, name in enumerate([*names, "output"], start=1):
        layer, stride = params[name], 2 if number == decoder.upsampling_layer else 1
        # Flax's kernel is not flipped, ONNX's is that of a convolution's gradient.
        kernel = np.transpose(np.flip(layer["kernel"], (0, 1)), (2, 3, 0, 1))
        pads = [1, 1, 1, 1] if stride == 1 else [0, 0, 1, 1]
        bias = np.asarray(layer["bias"])
        graph.add("ConvTranspose", kernel, bias, strides=[stride, stride], pads=pads)
        graph.add("Sigmoid" if name == "output" else "Relu")
    graph.reshape(-1, *decoder.image_size, 1)


def to_onnx(run: "Run") -> dict[str, bytes]:
    """ONNX models by file name: encoder, decoder and autoencoder, each checked.

    Raises:
      UserError: onnx or onnxruntime is not installed, the decoder is not one of
        `models.decoders.Decoder`, or a graph does not give what JAX gives.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--format=onnx: needs {error.name}: pip install 'emnist-jax[onnx]'"
        ) from error
    (encoder, encoder_params), (decoder, decoder_params) = run.encoder, run.decoder
    if type(decoder) is not Decoder:
        raise UserError(
            f"--format=onnx: knows the layers of {Decoder.__name__} only, not those of "
            f"{type(decoder).__name__}; --format=stablehlo takes any"
        )
    images, latents = (*run.image_size, 1), (run.decoder_latent_dim,)
    rng = np.random.default_rng(0)
    found = {}
    for name in ("encoder", "decoder", "autoencoder"):
        first, last = (latents, images) if name == "decoder" else (images, images)
        if name == "encoder":
            last = (run.latent_dim,)
        given = "latents" if name == "decoder" else "images"
        graph = _Graph(given)
        if name != "decoder":
            _encode(graph, encoder, jax.device_get(encoder_params))
        if name != "encoder":
            _decode(graph, decoder, jax.device_get(decoder_params))
        found[f"{name}.onnx"] = content = _model(graph, name, (given, first), last)
        inputs = rng.random((3, *first), np.float32)
        expected = {
            "encoder": run.encode,
            "decoder": run.decode,
            "autoencoder": run.reconstruct,
        }[name](inputs)
        _check(name, content, inputs, expected)
    return found


def _model(graph: _Graph, name: str, given: tuple[str, tuple], last: tuple) -> bytes:
    from onnx import TensorProto, checker, helper

    result = "latents" if name == "encoder" else "reconstructions"
    graph.nodes[-1].output[0] = result
    (first_name, first), kind = given, TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info(first_name, kind, ["batch", *first])],
            [helper.make_tensor_value_info(result, kind, ["batch", *last])],
            graph.parameters,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="emnist_jax",
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _check(name: str, content: bytes, inputs: np.ndarray, expected: np.ndarray) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max()) / scale
    if not difference <= _TOLERANCE:
        raise UserError(
            f"{name}.onnx: differs from JAX by {difference:.1e} of its range"
        )

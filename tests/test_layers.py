"""Layers are those of Flax in parameters, outputs and gradients, on every path."""

import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax import cpu
from emnist_jax.cpu import runtime
from emnist_jax.models.layers import Conv, ConvTranspose

FLAX = {Conv: nn.Conv, ConvTranspose: nn.ConvTranspose}

# Height, width, channels in and out, stride; layer; relu. At stride 1 both layers are
# the same. Every kernel with relu and without, edges of tiles and blocks, one image
# and three.
CASES = {
    "same": [
        ((14, 14, 64, 64, 1), Conv, True),
        ((28, 28, 64, 32, 1), ConvTranspose, False),
        ((9, 5, 48, 16, 1), ConvTranspose, True),
        ((1, 1, 16, 16, 1), Conv, False),
    ],
    "one channel": [
        ((28, 28, 1, 32, 1), Conv, True),
        ((28, 28, 32, 1, 1), ConvTranspose, False),
        ((4, 6, 1, 16, 1), Conv, False),
        ((4, 6, 16, 1, 1), ConvTranspose, True),
    ],
    "stride 2": [
        ((28, 28, 32, 64, 2), Conv, True),
        ((14, 14, 64, 64, 2), ConvTranspose, False),
        ((6, 4, 16, 48, 2), Conv, False),
        ((6, 4, 16, 48, 2), ConvTranspose, True),
        ((5, 7, 16, 16, 2), ConvTranspose, False),
    ],
    "none": [
        ((5, 7, 16, 16, 2), Conv, True),
        ((7, 30, 3, 5, 1), Conv, True),
        ((8, 6, 5, 3, 2), Conv, False),
        ((8, 6, 5, 3, 2), ConvTranspose, True),
    ],
}
SMALL = [
    *CASES["one channel"][2:],
    *CASES["stride 2"][2:4],
    CASES["same"][2],
]

# Every way in which a layer can be computed on a CPU. LLVM takes short vectors on any
# processor; "sub-pixel" is what remains without llvmlite.
PATHS = [("kernels", cases) for cases in CASES.values()]
PATHS += [
    ("avx2", SMALL),
    ("neon", SMALL),
    ("sub-pixel", SMALL[3:4]),
    ("off", SMALL[3:4]),
]


@pytest.fixture
def path(request, monkeypatch):
    if request.param == "off":
        monkeypatch.setenv("EMNIST_JAX_CPU_LAYERS", "0")
    elif request.param == "sub-pixel":
        monkeypatch.setattr(cpu, "vector_length", lambda: 0)
    elif request.param != "kernels":
        vectors = {"avx2": (8, 16), "neon": (4, 32)}[request.param]
        monkeypatch.setattr(cpu, "vector_length", lambda: vectors[0])
        monkeypatch.setattr(runtime, "vector_registers", lambda: vectors)
    return request.param


def data(*shape):
    generator = np.random.default_rng(sum(shape))
    return jnp.asarray(generator.standard_normal(shape), jnp.float32)


def weighted(outputs, weights, relu):
    """A weighted sum of the outputs, and these."""
    if relu:  # a value that rounding moves over 0 would change its gradient
        weights = jnp.where(jnp.abs(outputs) < 1e-4, 0, weights)
        outputs = nn.relu(outputs)
    return jnp.vdot(outputs, weights), (outputs, weights)


def assert_close(actual, expected, tolerance, case=None):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape, case
        error = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()
        assert error <= tolerance * max(1, np.abs(b).max()), case


def inputs_of(shape):
    """Variables, inputs, and weights of the outputs of a layer."""
    height, width, inputs, outputs, _ = shape
    kernel, bias = data(3, 3, inputs, outputs), data(outputs)
    kernel = kernel / np.float32((9 * inputs) ** 0.5)
    x = data(1 if height < 5 else 3, height, width, inputs)
    return {"params": {"kernel": kernel, "bias": bias}}, x


@pytest.mark.parametrize(
    ("path", "cases"), PATHS, indirect=["path"], ids=[*CASES, *"1234"]
)
def test_same_as_flax(path, cases):
    """Outputs and gradients, against those of Flax in float64."""

    def expect(layer, strides, relu, variables, x):
        module = FLAX[layer](variables["params"]["bias"].size, (3, 3), (strides,) * 2)
        outputs = jax.eval_shape(module.apply, variables, x)
        weights = data(*outputs.shape).astype(outputs.dtype)

        def loss(variables, x):
            return weighted(module.apply(variables, x), weights, relu)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    def compute(layer, strides, relu, variables, x, weights):
        features = variables["params"]["bias"].size
        module = layer(features, strides, relu=relu)

        def loss(variables, x):
            outputs = module.apply(variables, x)
            return jnp.vdot(outputs, weights), outputs

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    def of_all(function, arguments):
        kinds = [(layer, shape[-1], relu) for shape, layer, relu in cases]
        return jax.jit(
            lambda arguments: [
                function(*kind, *each)
                for kind, each in zip(kinds, arguments, strict=True)
            ]
        )(arguments)

    inputs = [inputs_of(shape) for shape, _, _ in cases]
    with jax.enable_x64(True):
        doubled = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), inputs)
        expected = of_all(expect, doubled)
    singles = [
        (*each, np.float32(weights))
        for each, (_, (_, weights)) in zip(inputs, expected, strict=True)
    ]
    found = of_all(compute, singles)
    for case, ours, (gradients, (outputs, _)) in zip(
        cases, found, expected, strict=True
    ):
        assert_close(ours, (gradients, outputs), 1e-5, case)


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
def test_first_parameters_are_those_of_flax(layer):
    x, bias = jnp.zeros((1, 4, 4, 3)), nn.initializers.normal()
    ours = layer(8, 2, bias_init=bias)
    flax = FLAX[layer](8, (3, 3), (2, 2), bias_init=bias)
    first = [jax.jit(m.init)(jax.random.key(1), x) for m in (ours, flax)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *first))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_other_types(dtype):
    shape = (6, 6, 16, 32, 2)
    with jax.enable_x64(dtype == jnp.float64):
        variables, x = inputs_of(shape)
        found, expected = jax.jit(
            lambda variables, x: [
                [module.apply(variables, x) for module in modules]
                for modules in (
                    [layer(32, 2, dtype=dtype) for layer in FLAX],
                    [flax(32, (3, 3), (2, 2), dtype=dtype) for flax in FLAX.values()],
                )
            ]
        )(variables, x)
        assert {y.dtype for y in found} == {jnp.dtype(dtype)}
        tolerance = 0.05 if dtype == jnp.bfloat16 else 1e-12
        assert_close(found, expected, tolerance)
        first = jax.eval_shape(Conv(32, dtype=dtype).init, jax.random.key(1), x)
    assert {v.dtype for v in jax.tree.leaves(first)} == {jnp.dtype("float32")}


def uses_kernels(features, x, dtype=None):
    module = Conv(features, dtype=dtype)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    return "ffi_call" in str(jax.make_jaxpr(module.apply)(variables, x))


def test_switch(monkeypatch):
    x = jnp.zeros((1, 8, 8, 16))
    assert cpu.vector_length() in (4, 8, 16)  # llvmlite is a dependency
    assert uses_kernels(32, x)
    assert not uses_kernels(3, x)
    assert not uses_kernels(32, jnp.zeros((1, 8, 8, 3)))
    assert not uses_kernels(32, x[:0])
    assert not uses_kernels(32, x, jnp.bfloat16)
    monkeypatch.setenv("EMNIST_JAX_CPU_LAYERS", "0")
    assert not uses_kernels(32, x)


def test_compiler_options(monkeypatch):
    options = cpu.compiler_options()
    assert options
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    monkeypatch.setattr(cpu, "_OPTIONS", {"xla_cpu_no_such_option": "1"})
    cpu._known_options.cache_clear()
    try:
        assert cpu.compiler_options() == {}
    finally:
        cpu._known_options.cache_clear()
    monkeypatch.undo()
    monkeypatch.setenv("EMNIST_JAX_CPU_LAYERS", "0")
    assert cpu.compiler_options() == {}


def test_nan_is_not_hidden():
    for features, inputs in ((32, 16), (32, 1)):
        variables, _ = inputs_of((6, 6, inputs, features, 1))
        x = np.ones((1, 6, 6, inputs), np.float32)
        x[0, 3, 3, 0] = np.nan
        y = jax.jit(Conv(features, relu=True).apply)(variables, x)
        assert jnp.isnan(y[0, 2:5, 2:5]).all()


def train_like(variables, x):
    chain = nn.Sequential(
        [
            Conv(32, relu=True),
            Conv(64, 2, relu=True),
            Conv(64, relu=True),
            ConvTranspose(32, 2, relu=True),
            ConvTranspose(1),
        ]
    )
    if variables is None:
        return chain.init(jax.random.key(0), x)
    return jnp.mean((chain.apply(variables, x) - x) ** 2)


def test_under_pmap_scan_vmap_and_twice():
    x = data(4, 12, 12, 1)
    variables = train_like(None, x)
    both = jax.value_and_grad(train_like)
    expected = jax.jit(both)(variables, x)
    again = jax.jit(both)(variables, x)
    assert jax.tree.all(jax.tree.map(np.array_equal, expected, again))

    def mean(variables, x):
        return jax.lax.pmean(both(variables, x), "i")

    mapped = jax.jit(jax.pmap(mean, "i", in_axes=(None, 0), out_axes=None))
    assert_close(mapped(variables, x.reshape(2, 2, 12, 12, 1)), expected, 1e-5)

    def scanned(variables, x):
        return jax.lax.scan(lambda c, x: (c, both(variables, x)), 0, x)[1]

    stacked = jax.jit(scanned)(variables, jnp.stack([x, x]))
    assert_close(jax.tree.map(lambda v: v[1], stacked), expected, 1e-5)
    each = jax.jit(jax.vmap(train_like, (None, 0)))(variables, jnp.stack([x, x]))
    assert_close(each, jnp.full(2, expected[0]), 1e-5)


def test_many_calls_at_once():
    """More calls than XLA has threads: none waits for a helper that cannot start."""
    x = data(16, 12, 12, 1)
    variables = train_like(None, x)
    function = jax.jit(jax.value_and_grad(train_like))
    expected = jax.tree.map(np.asarray, function(variables, x))
    results = []

    def work():
        for _ in range(20):
            results.append(jax.tree.map(np.asarray, function(variables, x)))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 120
    for result in results:
        assert jax.tree.all(jax.tree.map(np.array_equal, result, expected))

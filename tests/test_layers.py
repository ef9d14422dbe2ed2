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

# Height, width, channels in and out, stride: every kernel, edges of tiles and blocks.
SHAPES = [
    (28, 28, 1, 32, 1),
    (28, 28, 32, 1, 1),
    (28, 28, 32, 64, 2),
    (14, 14, 64, 64, 1),
    (28, 28, 64, 32, 1),
    (14, 14, 64, 64, 2),
    (6, 4, 16, 48, 2),
    (9, 5, 48, 16, 1),
    (1, 1, 16, 16, 1),
    (5, 7, 16, 16, 2),
    (7, 30, 3, 5, 1),
    (8, 6, 5, 3, 2),
]


SMALL = [(6, 4, 16, 48, 2), (9, 5, 48, 16, 1), (4, 6, 1, 16, 1), (4, 6, 16, 1, 1)]

# Every way in which a layer can be computed on a CPU. LLVM takes short vectors on any
# processor; "sub-pixel" is what remains without llvmlite.
CASES = [("kernels", shape) for shape in SHAPES] + [
    (path, shape) for path in ("avx2", "neon", "sub-pixel") for shape in SMALL
]
CASES.append(("off", SMALL[0]))  # the same operations of XLA for every shape


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


def loss_and_gradients(module, variables, x, weights):
    """A weighted sum of the outputs, and its gradients."""

    def loss(variables, x):
        return jnp.vdot(module.apply(variables, x), weights.astype(x.dtype))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables, x)


def assert_close(actual, expected, tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        error = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()
        assert error <= tolerance * max(1, np.abs(b).max())


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
@pytest.mark.parametrize(("path", "shape"), CASES, indirect=["path"], ids=str)
def test_same_as_flax(path, layer, shape):
    height, width, inputs, outputs, strides = shape
    for batch, relu in ((1, False), (3, True)):
        x = data(batch, height, width, inputs)
        ours = layer(outputs, strides, bias_init=nn.initializers.normal(), relu=relu)
        flax = FLAX[layer](
            outputs, (3, 3), (strides, strides), bias_init=nn.initializers.normal()
        )
        variables = ours.init(jax.random.key(1), x)
        same = jax.tree.map(np.array_equal, variables, flax.init(jax.random.key(1), x))
        assert jax.tree.all(same)
        y = jax.jit(ours.apply)(variables, x)
        expected = flax.apply(variables, x)
        assert_close(y, nn.relu(expected) if relu else expected, 1e-5)


@pytest.mark.parametrize(("layer", "relu"), [(Conv, True), (ConvTranspose, False)])
@pytest.mark.parametrize(("path", "shape"), CASES, indirect=["path"], ids=str)
def test_gradients_in_float64(path, layer, shape, relu):
    height, width, inputs, outputs, strides = shape
    relu = relu == (strides == 2)  # so both kinds of layer meet both
    x = data(3, height, width, inputs)
    ours = layer(outputs, strides, bias_init=nn.initializers.normal(), relu=relu)
    variables = ours.init(jax.random.key(1), x)
    y = ours.apply(variables, x)
    weights = data(*y.shape)
    if relu:  # a value that rounding moves over 0 would change its gradient
        plain = ours.clone(relu=False).apply(variables, x)
        weights = jnp.where(jnp.abs(plain) < 1e-4, 0, weights)
    _, gradients = loss_and_gradients(ours, variables, x, weights)
    with jax.enable_x64(True):
        flax = FLAX[layer](outputs, (3, 3), (strides, strides))
        module = nn.Sequential([flax, nn.relu]) if relu else flax
        doubled = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), (variables, x))
        parameters = doubled[0]["params"]
        tree = {"params": {"layers_0": parameters} if relu else parameters}
        _, expected = loss_and_gradients(module, tree, doubled[1], weights)
        if relu:
            expected = ({"params": expected[0]["params"]["layers_0"]}, expected[1])
    assert_close(gradients, expected, 1e-5)


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_other_types(layer, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x = data(2, 6, 6, 16)
        ours, flax = (
            layer(32, 2, dtype=dtype),
            FLAX[layer](32, (3, 3), (2, 2), dtype=dtype),
        )
        variables = ours.init(jax.random.key(1), x)
        assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        y = ours.apply(variables, x)
        assert y.dtype == dtype
        tolerance = 0.05 if dtype == jnp.bfloat16 else 1e-12
        assert_close(y, flax.apply(variables, x), tolerance)


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
        x = jnp.ones((1, 6, 6, inputs)).at[0, 3, 3, 0].set(jnp.nan)
        module = Conv(features, relu=True)
        y = module.apply(module.init(jax.random.key(0), x), x)
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

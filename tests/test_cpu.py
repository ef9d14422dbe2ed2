"""The CPU kernels are safe: their joint to XLA, their buffers, what is done without."""

import ctypes
import functools
import hashlib
import os
import re

import jax
import jax.numpy as jnp
import llvmlite.binding as llvm
import numpy as np
import pytest

from emnist_jax import cpu
from emnist_jax.cpu import convolution, interface, machine_code, runtime, trial
from emnist_jax.models.layers import Conv
from tests.test_layers import assert_close, data, train_like

STRUCTS = [
    value
    for value in vars(interface).values()
    if isinstance(value, type) and value.__module__ == interface.__name__
]


@functools.cache
def header():
    folder = jax.ffi.include_dir()
    with open(f"{folder}/xla/ffi/api/c_api.h") as file:
        text = re.sub(r"//.*", "", file.read())
    # Of JAX 0.12 only some names are new.
    text = text.replace("XLA_FFI_InternalExtension_", "XLA_FFI_Extension_")
    text = re.sub(r"XLA_FFI_InternalExtension\b", "XLA_FFI_Extension_Base", text)
    text = text.replace("InvokeContext_Get", "ExecutionContext_Get")
    return text.replace("Error_GetDetails", "Error_GetMessage")


def declared(name):
    """The fields of a struct in XLA's header."""
    fields = re.search(rf"struct XLA_FFI_{name} {{(.*?)}};?", header(), re.DOTALL)[1]
    fields = re.sub(r"_XLA_FFI_API_STRUCT_FIELD\(XLA_FFI_(\w+)\)", r"void* \1", fields)
    return [
        line.replace("struct ", "").rpartition(" ")[::2]
        for line in map(str.strip, fields.split(";"))
        if line
    ]


def c_type(name):
    """What ctypes calls a C type of the header."""
    name = name.removeprefix("const ")
    if name.endswith("*"):
        return ctypes.c_void_p
    numbers = {"int": "int", "size_t": "size_t", "int64_t": "int64"}
    if name in numbers:
        return getattr(ctypes, f"c_{numbers[name]}")
    if re.search(rf"typedef enum {{[^}}]*}} {name};", header()):
        return ctypes.c_int
    bare = name.removeprefix("XLA_FFI_")
    if hasattr(interface, bare):
        return getattr(interface, bare)
    return {"Handler_Traits": ctypes.c_uint32, "TypeId": ctypes.c_int64}[bare]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_structs_are_those_of_the_header(struct):
    if struct.__name__.startswith("_"):
        return
    expected = [(name, c_type(kind)) for kind, name in declared(struct.__name__)]
    bases = [base.__dict__.get("_fields_", []) for base in struct.__mro__[::-1]]
    ours = [(name, kind) for fields in bases for name, kind in fields]
    if struct is interface.Api:  # methods that come later are not used
        expected = [(n.removeprefix("XLA_FFI_"), k) for n, k in expected[: len(ours)]]
    assert ours == expected


def test_numbers_are_those_of_the_header():
    for name in ("API_MAJOR", "API_MINOR"):
        (value,) = re.findall(rf"#define XLA_FFI_{name} (\d+)", header())
        ours = getattr(interface, name)  # minor ones add to what there is
        assert int(value) == ours or name == "API_MINOR" and int(value) > ours
    (value,) = re.findall(r"XLA_FFI_Extension_Metadata = (\d+)", header())
    assert int(value) == interface.EXTENSION_METADATA


def tiny_kernel():
    """A compiled kernel: adds nothing to 16 floats."""

    def copy():
        def body(e, buffers, unit, slot, batch):
            e.store(e.load(buffers[0]), buffers[1])

        return body, 1, 1, 1

    return runtime.handler_of(runtime.compile_kernel(copy))


def test_extensions_of_other_kinds_are_passed_over():
    handler = tiny_kernel()
    metadata = interface.Metadata()
    question = interface.Metadata_Extension(metadata=ctypes.addressof(metadata))
    question.extension_base.type = interface.EXTENSION_METADATA
    unknown = interface.Extension_Base(type=77, next=ctypes.addressof(question))
    frame = interface.CallFrame(extension_start=ctypes.addressof(unknown))
    assert handler(ctypes.addressof(frame)) is None
    version = metadata.api_version
    assert (version.major_version, version.minor_version) == (0, interface.API_MINOR)

    unknown.next = None  # nobody asks: it is a call
    arrays = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
    dims = (ctypes.c_int64 * 1)(16)
    buffers = [
        interface.Buffer(data=a.ctypes.data, rank=1, dims=ctypes.addressof(dims))
        for a in arrays
    ]
    lists = [(ctypes.c_void_p * 1)(ctypes.addressof(b)) for b in buffers]
    frame.args.args, frame.rets.rets = map(ctypes.addressof, lists)
    assert handler(ctypes.addressof(frame)) is None
    lanes = cpu.vector_length()
    np.testing.assert_array_equal(arrays[1][:lanes], arrays[0][:lanes])


def test_machine_code_is_never_read_from_a_file(tmp_path, monkeypatch):
    """Where object files once lay beside JAX's cache, with their own SHA-256."""
    source = "define i64 @handler(i64 %x) {\n  ret i64 42\n}"
    machine = machine_code.target_machine()
    features = llvm.get_host_cpu_features().flatten()
    facts = source, machine.triple, str(llvm.llvm_version_info)
    key = "\n".join((*facts, llvm.get_host_cpu_name(), features)).encode()
    hostile = llvm.parse_assembly(source.replace("42", "666"))
    code = machine.emit_object(hostile)
    planted = tmp_path / "emnist_jax" / f"{hashlib.sha256(key).hexdigest()}.o"
    planted.parent.mkdir()
    planted.write_bytes(hashlib.sha256(code).digest() + code)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        engine = machine_code.compile_module(source)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    signature = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    assert signature(engine.get_function_address("handler"))(1) == 42
    assert os.listdir(tmp_path / "emnist_jax") == [planted.name]


@pytest.fixture
def untried(monkeypatch, tmp_path):
    """A user whose kernels have never been tried."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cpu, "_given_up", False)
    trial._passed.cache_clear()
    yield tmp_path / "emnist_jax" / "kernels"
    trial._passed.cache_clear()


@pytest.mark.parametrize(
    ("child", "message"),
    [
        ("import os; os.abort()", "a trial ended with -6"),
        ("raise ImportError('no such symbol')", "ImportError: no such symbol"),
    ],
)
def test_kernels_that_fail_when_tried(untried, monkeypatch, capfd, child, message):
    monkeypatch.setattr(trial, "_CHILD", child)
    x = data(1, 6, 6, 16)
    module = Conv(32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    y = jax.jit(module.apply)(variables, x)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: the CPU kernels do not work here (" + message)
    with cpu.plain_layers():
        assert_close(y, module.apply(variables, x), 1e-6)
    assert not any(untried.iterdir())


def test_wrong_results_are_noticed(monkeypatch):
    right = convolution.forward

    def wrong(kind, *arguments):
        return right(kind, *arguments) * (1.01 if kind == "gather" else 1)

    monkeypatch.setattr(convolution, "forward", wrong)
    with pytest.raises(SystemExit, match="'gather' gives wrong results"):
        trial.main()


def test_a_verdict_is_kept_and_read(untried, monkeypatch):
    tried = []
    monkeypatch.setattr(trial, "_try", lambda: tried.append(1))
    for _ in range(2):
        assert trial.passed()
        trial._passed.cache_clear()
    assert len(tried) == 1
    assert untried.stat().st_mode & 0o777 == 0o700
    untried.chmod(0o770)  # others could say what they like
    assert trial.passed() and len(tried) == 2
    trial._passed.cache_clear()
    untried.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: untried.stat().st_uid + 1)
    assert trial.passed() and len(tried) == 3
    trial._passed.cache_clear()
    monkeypatch.undo()
    monkeypatch.setattr(trial, "_try", lambda: tried.append(1))
    monkeypatch.setattr(trial.paths, "cache_home", lambda: None)
    assert trial.passed() and len(tried) == 4


@pytest.mark.long
def test_kernels_that_cannot_be_compiled(untried, monkeypatch, capfd):
    def fail(*_):
        raise RuntimeError("LLVM:\nunknown instruction")

    x, module = data(1, 4, 4, 16), Conv(16, relu=True)
    variables = module.init(jax.random.key(0), x)

    def loss(variables):
        return module.apply(variables, x).sum()

    with cpu.plain_layers():
        expected = jax.jit(jax.grad(loss))(variables)
    monkeypatch.setattr(runtime, "compile_kernel", fail)
    assert_close(jax.jit(jax.grad(loss))(variables), expected, 1e-5)
    (line,) = capfd.readouterr().err.splitlines()
    assert "(RuntimeError: LLVM: unknown instruction)" in line


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_path_is_that_of_the_platform_lowered_for(platform):
    x = data(2, 12, 12, 1)
    variables = train_like(None, x)
    traced = jax.jit(jax.value_and_grad(train_like)).trace(variables, x)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("@emnist_jax") == (14 if platform == "cpu" else 0)
    if platform != "cpu":
        jax.export.export(jax.jit(train_like), platforms=[platform])(variables, x)


def test_derivatives_of_every_kind():
    """Against the gradient that the kernels compute, and each other."""
    x = data(1, 4, 4, 1)
    variables = train_like(None, x)

    @jax.jit  # compiled with kernels first: that program must not be taken below
    def loss(x):
        return train_like(variables, x)

    gradient = jax.grad(loss)(x)
    direction = data(*x.shape[::-1]).T
    with cpu.plain_layers():
        _, slope = jax.jvp(loss, (x,), (direction,))
        forward, product = jax.jvp(jax.grad(loss), (x,), (direction,))
        hessian = jax.hessian(loss)(x).reshape(16, 16)
    assert_close(hessian @ direction.reshape(16), product.reshape(16), 1e-4)
    assert_close(slope, jnp.vdot(gradient, direction), 1e-4)
    assert_close(forward, gradient, 1e-4)

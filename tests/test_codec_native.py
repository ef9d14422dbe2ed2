"""Machine code for pixels: equal to the form in JAX, whatever the processor."""

import concurrent.futures
import multiprocessing
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from codec_models import tiny_model

from emnist_jax.codec import model_file, native, pixel_coding, rans
from emnist_jax.codec.native import calls, dots, trial
from emnist_jax.cpu import machine_code

LONG = pytest.mark.long


@pytest.fixture(scope="module")
def blocks(images):
    """Blocks of odd sizes with grain, easy and hard pixels; as many lanes in each."""
    grain = np.random.default_rng(0).integers(0, 6, (64, 6, 7)).astype(np.uint8)
    parts = images[:, 8:14, 10:17, 0]
    parts = np.where(parts > 0, np.minimum(parts, 249) + grain, 0).astype(np.uint8)
    return [parts[:17], parts[17:18], parts[18:48]]


def by_jax(function, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMNIST_JAX_CPU_LAYERS", "0")
        return function(*arguments)


@pytest.mark.parametrize(
    ("name", "max_error"),
    [("tiny", 0), ("tiny", 1), ("default", 0), pytest.param("tiny", 9, marks=LONG)],
)
def test_equal_to_jax(name, max_error, blocks):
    model = tiny_model() if name == "tiny" else model_file.load(name)[0]
    streams, pixels = pixel_coding.encode(model, blocks, max_error)
    wanted, seen = by_jax(pixel_coding.encode, model, blocks, max_error)
    assert streams == wanted
    np.testing.assert_array_equal(pixels, seen)
    counts, shape = [len(block) for block in blocks], blocks[0].shape[1:]
    found = pixel_coding.decode(model, streams, counts, shape, max_error)
    np.testing.assert_array_equal(np.concatenate(found), seen)
    assert max_error or np.array_equal(seen, np.concatenate(blocks))


@pytest.mark.parametrize(
    ("max_error", "weight"), [(2, 20_000), pytest.param(60, 1, marks=LONG)]
)
def test_lossy_files_are_equal_to_jax(max_error, weight, blocks):
    chosen = tiny_model(), blocks, max_error, lambda share: None, weight
    streams, pixels = pixel_coding.encode(*chosen)
    wanted, seen = by_jax(pixel_coding.encode, *chosen)
    assert streams == wanted
    np.testing.assert_array_equal(pixels, seen)
    counts, shape = [len(block) for block in blocks], blocks[0].shape[1:]
    again = chosen[0], streams, counts, shape, max_error
    for found in (
        pixel_coding.decode(*again, lossy=True),
        by_jax(lambda: pixel_coding.decode(*again, lossy=True)),
    ):
        np.testing.assert_array_equal(np.concatenate(found), pixels)
    plain, kept = pixel_coding.encode(*chosen[:3])
    assert sum(map(len, streams)) < sum(map(len, plain))
    error, least = (
        np.abs(np.concatenate(blocks) - x.astype(int)) for x in (seen, kept)
    )
    assert error.sum() > least.sum()


def without(*words):
    """This processor with fewer features."""
    _, features = machine_code.host()
    left = [
        "-" + feature[1:] if feature[1:].startswith(words) else feature
        for feature in features.split(",")
    ]
    return "", ",".join(left)


VNNI = "avx512vnni", "avxvnni"
AVX = "avx", "fma", "f16c", "vaes", "vpclmul", "xop"
PROCESSORS = [VNNI, (*VNNI, "avx512"), AVX]


@pytest.mark.parametrize("missing", PROCESSORS, ids=lambda words: f"no {words[0]}")
@pytest.mark.parametrize("lossy", [False, True], ids=["encoder", "lossy decoder"])
def test_equal_with_fewer_features(missing, lossy):
    # What is expected is what JAX gives: see the next test.
    processor = without(*missing)
    form, *_ = dots.forms(processor[1])
    machine = native.Machine(not lossy, lossy, form, processor, False)
    assert form.group == 2  # the instructions that take groups of 4 are missing
    assert trial.passes(machine, not lossy, lossy)


def test_equal_without_any_instruction_for_products():
    machine = native.Machine(True, False, dots.Form(), without(), False)
    assert trial.passes(machine, True, False)


@pytest.mark.parametrize("max_error", [0, pytest.param(2, marks=LONG)])
def test_the_trial_expects_what_jax_gives(max_error, monkeypatch):
    images, model = trial.images(), trial.model()
    (written,), _ = by_jax(pixel_coding.encode, model, [images], max_error)
    assert zlib.crc32(written) == trial.WRITTEN[max_error]
    monkeypatch.setattr(rans, "check_end", lambda *arguments: None)
    arguments = model, [trial.stream()], [len(images)], (3, 4), max_error
    (read,) = by_jax(pixel_coding.decode, *arguments)
    assert zlib.crc32(read) == trial.READ[max_error]


def test_a_machine_that_errs_is_not_used(monkeypatch, capsys):
    tried = []
    monkeypatch.setattr(trial, "passes", lambda *arguments: tried.append(arguments))
    monkeypatch.setattr(native, "options", {"checked": None})  # not compiled before
    monkeypatch.setattr(dots, "forms", lambda features: [dots.Form()])
    monkeypatch.setattr(pixel_coding, "_unusable", set())
    images, model = trial.images(), trial.model()
    for _ in range(2):
        streams, pixels = pixel_coding.encode(model, [images])
        np.testing.assert_array_equal(pixels, images)
    pixel_coding.decode(model, streams, [len(images)], (3, 4))
    assert capsys.readouterr().err.count("its results are wrong") == 1
    assert len(tried) == 2  # an encoder and a decoder, once each


@pytest.mark.parametrize("max_error", [pytest.param(0, marks=LONG), 3])
def test_checked_machines_stay_within_their_arrays(max_error, blocks, monkeypatch):
    """Whatever a stream says; an index out of bounds fails an assertion."""
    monkeypatch.setattr(native, "options", {"checked": True})
    model, rng = tiny_model(), np.random.default_rng(max_error)
    blocks = [block[:, :4, :5] for block in blocks]
    counts, shape = [len(block) for block in blocks], blocks[0].shape[1:]
    streams, pixels = pixel_coding.encode(model, blocks, max_error)
    found = pixel_coding.decode(model, streams, counts, shape, max_error)
    np.testing.assert_array_equal(np.concatenate(found), pixels)
    damaged = 0
    for _ in range(60):
        mutated = [bytearray(stream) for stream in streams]
        for stream in mutated:
            place, change = rng.integers(0, len(stream), 2)
            stream[place] ^= 1 + change % 255
            del stream[rng.integers(4, 3 * len(stream)) & ~1 :]
        try:
            pixel_coding.decode(model, mutated, counts, shape, max_error)
        except rans.CorruptStream:
            damaged += 1
    assert damaged > 50


def test_threads(blocks):
    model = tiny_model()
    alone = pixel_coding.encode(model, blocks)[0]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(pixel_coding.encode, model, blocks) for _ in range(8)]
    assert all(job.result()[0] == alone for job in jobs)


def test_neither_reading_nor_writing_loads_jax(tmp_path):
    program = (
        "import sys, numpy as np; from emnist_jax import codec; "
        "x = np.zeros((3, 8, 8), np.uint8); x[1, 2:5, 3] = 200; "
        "codec.compress_file('a.ejx', x); y = codec.open('a.ejx'); "
        "assert np.array_equal(y[1], x[1]); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_the_bounds_of_a_checked_machine_are_checked(blocks, monkeypatch):
    monkeypatch.setattr(native, "options", {"checked": True})
    pixel_coding.encode(tiny_model(), blocks, 3)  # compiled and tried
    room = calls.room
    monkeypatch.setattr(
        calls, "room", lambda *given: room(*given) | {"ends": np.zeros(9, "i4")}
    )
    with pytest.raises(AssertionError, match="bound"):
        pixel_coding.encode(tiny_model(), blocks, 3)


def test_threads_compile_once_and_forks_do_not_wait(monkeypatch):
    tried, passes = [], trial.passes
    monkeypatch.setattr(trial, "passes", lambda *a: tried.append(1) or passes(*a))
    native._compiled.cache_clear()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: native.prepared(False, 0), range(4)))
    assert len(tried) == 1 and len(set(map(id, found))) == 1
    with native._turn[0]:  # as if a thread compiled
        child = multiprocessing.get_context("fork").Process(
            target=native.prepared, args=(False, 0)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX and Python 3.12 advise against it
            child.start()
        child.join(20)
        child.kill()
    assert child.exitcode == 0, "it hangs"

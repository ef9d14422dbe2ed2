"""Latent files: the basis, the search for better latents, and wanted sizes."""

import dataclasses

import jax
import numpy as np
import pytest
from codec_models import GOLDEN, PoolingAutoencoder, golden_images

import emnist_jax
from emnist_jax import codec
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, latent_basis, latent_coding, latent_fit
from emnist_jax.codec.model_file import digest

pytestmark = pytest.mark.usefixtures("few_derivatives")


@pytest.fixture(scope="module")
def trained(run_path):
    return emnist_jax.load_run(run_path)


@dataclasses.dataclass(frozen=True)
class Linear:
    """Images of 4x4 pixels and latents that are linear in each other."""

    matrix: np.ndarray  # [D, 16]

    @property
    def decoder(self):
        return None, [self.matrix]

    def encode(self, images):
        pixels = images.reshape(-1, 16) / np.float32(255)
        return pixels @ np.linalg.pinv(self.matrix).astype(np.float32)

    def decode(self, latents):
        return (latents @ self.matrix).astype(np.float32).reshape(-1, 4, 4, 1)


def linear(dimension=5):
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(dimension, 16)) * np.logspace(-3, 1, dimension)[:, None]
    return Linear(matrix.astype(np.float32)), rng


def test_steps_of_the_basis_cost_equal_error_and_coordinates_are_uncorrelated():
    run, rng = linear()
    latents = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    latents = (latents / np.logspace(-3, 1, 5)).astype(np.float32)
    directions, scale, cost = latent_basis.find(run.decode, latents)
    assert directions.dtype == np.int8 and np.abs(directions).max() == 127
    rows = directions * scale[None] / cost[:, None]
    changes = rows @ run.matrix  # what a unit of each direction does to pixels
    np.testing.assert_allclose(changes @ changes.T, np.eye(5), atol=0.03)
    spread = np.cov(((latents - latents.mean(0)) @ np.linalg.inv(rows)).T)
    sizes = np.sqrt(np.diag(spread))
    assert (np.diff(sizes) < 0).all()  # the widest first
    np.testing.assert_allclose(spread / np.outer(sizes, sizes), np.eye(5), atol=0.15)


@pytest.mark.parametrize("dead", [np.nan, 0.0])
def test_latents_that_do_nothing(dead):
    """Constant ones, and ones that the decoder does not look at."""
    run, rng = linear()
    run.matrix[1] = 0
    images = rng.integers(0, 256, (20, 4, 4), np.uint8)
    latents = run.encode(images)
    latents[:, 1] = rng.normal(size=20) if np.isnan(dead) else dead
    found = latent_basis.find(run.decode, latents)
    assert all(np.isfinite(part).all() for part in found)
    content = codec.compress(images, mode="latent", run=run, bits=8)
    found = codec.decompress(content, run=run).astype(int)
    exact = np.clip(np.round(run.decode(run.encode(images)) * 255), 0, 255)[..., 0]
    assert np.abs(found - exact).max() < 12


@pytest.mark.parametrize("images", [golden_images()[:1], golden_images()[[3] * 5]])
def test_images_that_are_all_the_same(images):
    run = PoolingAutoencoder()
    for options in ({}, {"bits": 1}, {"mse": 0.2}, {"bytes_per_image": 3000}):
        content = codec.compress(images, mode="latent", run=run, **options)
        exact = np.round(255 * run.decode(run.encode(images[..., None])))[..., 0]
        found = codec.decompress(content, run=run)
        assert np.abs(found - exact).max() <= 1


def test_of_two_levels_the_cheaper_in_error_and_bits():
    bits = np.array([[10.0, 1.0, 2.0]])
    places = np.array([[0.0], [0.3], [0.45], [1.54], [1.65], [9.0]])
    found = latent_coding.cheapest(places, bits)
    # 9 bits more are worth 1.04 of a squared step, 1 bit 0.116.
    assert found.ravel().tolist() == [1, 1, 1, 1, 2, 2]


def test_refined_latents_are_never_worse(trained, images):
    images = images[:60]
    latents = trained.encode(images)
    basis = latent_basis.find(trained.decode, latents)
    directions, scale, cost = basis
    rows = directions * scale[None] / cost[:, None]

    def errors(latents):
        return ((trained.decode(latents) - images / np.float32(255)) ** 2).mean(
            (1, 2, 3)
        )

    before, found = errors(latents), {}
    for steps in (0, 8):
        better = trained.refine(images, latents, rows.T @ rows, steps)
        found[steps] = errors(better)
        assert (found[steps] <= before * (1 + 1e-5)).all()
    np.testing.assert_array_equal(found[0], before)
    assert found[8].mean() < 0.9 * before.mean()
    assert better.dtype == np.float32 and jax.device_count() > 1


def made(images, run, **options):
    """Bytes an image of a latent file, and the error that it leaves."""
    content = codec.compress(images, mode="latent", run=run, **options)
    found = codec.decompress(content, run=run).astype(int)
    error = found - images.reshape(found.shape)
    return len(content) / len(images), (error**2).mean() / 255**2


def test_a_wanted_size_and_a_wanted_error():
    images, run = golden_images(), PoolingAutoencoder()
    (small, most), (large, least) = (made(images, run, bits=bits) for bits in (2, 8))
    assert small < large and least < most
    size = (small + 4 * large) / 5
    found = made(images, run, bytes_per_image=size)
    assert 0.8 * size < found[0] < 1.05 * size
    assert least < found[1] < most
    error = (most + 3 * least) / 4
    found = made(images, run, mse=error)
    assert 0.9 * error < found[1] <= error and small < found[0] < large
    with pytest.raises(UserError, match="^mse=1e-09: .* take mode=lossy"):
        made(images, run, mse=1e-9)
    with pytest.raises(UserError, match="^bytes=0.1: the coarsest such file takes"):
        made(images, run, bytes_per_image=0.1)


def test_latent_files(trained):
    run, images = trained, golden_images()[..., None]
    content = codec.compress(images, mode="latent", run=run, bits=8, refine=0)
    found = codec.decompress(content, run=run)
    assert found.shape == images.shape
    exact = run.decode(run.encode(images)) * 255
    assert np.abs(found - exact).mean() < 4  # what 8 bits a latent cost
    coarse = codec.compress(images, mode="latent", run=run, bits=2)
    assert len(coarse) < len(content) < 2 * 32 * len(images) + 4000
    with pytest.raises(UserError, match="give run"):
        codec.decompress(content)


def test_searching_pays(trained, images):
    plain, searched = (made(images, trained, refine=steps) for steps in (0, 8))
    assert searched[1] < 0.8 * plain[1]


class Curved(Linear):
    """As `Linear`, but pixels are a curve of what latents make."""

    def encode(self, images):
        sums = np.arcsin(images.reshape(-1, 16) / 127.5 - 1)
        return (sums @ np.linalg.pinv(self.matrix)).astype(np.float32)

    def decode(self, latents):
        return np.sin(super().decode(latents)) / 2 + 0.5

    def errors(self, images, latents):
        sums = latents @ self.matrix
        off = np.sin(sums) / 2 + 0.5 - images.reshape(-1, 16) / np.float32(255)
        slopes = (off * np.cos(sums)) @ self.matrix.T
        return (off**2).sum(axis=1), slopes


def curved():
    """A run, and uint8 images [300, 4, 4] that it can nearly give back."""
    rng = np.random.default_rng(0)
    run = Curved(rng.normal(0, 0.4, (6, 16)).astype(np.float32))
    images = run.decode(rng.normal(size=(300, 6)).astype(np.float32))[..., 0]
    images = images + rng.normal(0, 0.03, images.shape)
    return run, np.clip(np.round(255 * images), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("bits", [3, 4])
def test_better_levels_cost_no_more(bits):
    run, images = curved()
    coder, _ = latent_fit.fit(run, images, "x", bits=bits, refine=8)
    nearest = coder.levels(coder.latents_of(images[..., None]))
    found = coder.symbols(images)
    assert found.dtype == np.uint8 and found.max() < 2**bits
    _, step = coder.improve.args
    spent = latent_coding.bits_of(coder.frequency)

    def cost(levels):
        errors, _ = run.errors(images, coder.latents(levels))
        rate = np.take_along_axis(spent, levels.T.astype(int), axis=1).sum(axis=0)
        return errors / step**2 + latent_coding.WORTH * rate, errors

    (before, error), (after, less) = cost(nearest), cost(found)
    assert (after <= before * (1 + 1e-6)).all() and after.mean() < before.mean()
    assert less.mean() < 0.95 * error.mean()
    again = coder.improve(coder, images[..., None], nearest)
    np.testing.assert_array_equal(found, again)


def test_a_wanted_error_is_that_of_better_levels():
    run, images = curved()
    size, error = made(images, run, mse=0.01)
    assert 0.0085 < error < 0.0105
    assert size < 0.97 * made(images, run, mse=0.01, refine=0)[0]


def test_a_wanted_size_is_that_of_better_levels():
    run, images = curved()
    size, error = made(images, run, bytes_per_image=3)
    nearest = made(images, run, bytes_per_image=3, refine=0)
    assert abs(size / nearest[0] - 1) < 0.02 and error < 0.9 * nearest[1]


def test_errors_have_their_gradients(trained, images):
    latents = trained.encode(images[:5])
    errors, slopes = trained.errors(images[:5], latents)
    outputs = trained.decode(latents) - images[:5] / np.float32(255)
    np.testing.assert_allclose(errors, (outputs**2).sum((1, 2, 3)), rtol=1e-5)
    change = np.random.default_rng(0).normal(size=latents.shape).astype(np.float32)
    change *= 1e-2
    ahead, behind = (
        trained.errors(images[:5], latents + sign * change)[0] for sign in (1, -1)
    )
    expected = (slopes * change).sum(axis=1)
    np.testing.assert_allclose((ahead - behind) / 2, expected, rtol=0.03, atol=5e-4)


def test_few_images_choose_for_many(monkeypatch):
    """Levels that the sample has not are there for the others."""
    monkeypatch.setattr(latent_fit, "SAMPLE", 10)
    images, run = golden_images(), PoolingAutoencoder()
    content = codec.compress(images, mode="latent", run=run, bits=7)
    exact = np.round(255 * run.decode(run.encode(images[..., None])))[..., 0]
    assert np.abs(codec.decompress(content, run=run) - exact).mean() < 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bits": 4, "mse": 0.1}, "one of bits, mse"),
        ({"mse": 0.1, "bytes_per_image": 9}, "one of bits, mse"),
        ({"mse": 0.0}, "^mse=0.0 is out of range"),
        ({"refine": -1}, "^refine=-1"),
        ({"refine": "x"}, "^refine=x"),
    ],
)
def test_wrong_options(options, problem):
    with pytest.raises(UserError, match=problem):
        run = PoolingAutoencoder()
        codec.compress(golden_images(), mode="latent", run=run, **options)


def test_joined_files_keep_their_basis(tmp_path):
    run, images = PoolingAutoencoder(), golden_images()
    for name in ("a.ejx", "b.ejx"):
        codec.compress_file(tmp_path / name, images, mode="latent", run=run)
    codec.join(tmp_path / "both.ejx", tmp_path / "a.ejx", tmp_path / "b.ejx")
    once, both = (
        codec.decompress((tmp_path / name).read_bytes(), run=run)
        for name in ("a.ejx", "both.ejx")
    )
    np.testing.assert_array_equal(both, np.concatenate([once, once]))


def test_a_basis_belongs_to_latents_alone():
    content = (GOLDEN / "codec_version-2.ejx").read_bytes()
    head = container.parse(content, len(content), "x")
    entries = [(block.kind, block.length, block.checksum) for block in head.blocks]
    turned = dataclasses.replace(
        head, features=head.features | container.TURNED, blocks=()
    )
    changed = container.pack(turned, entries) + content[head.end :]
    with pytest.raises(UserError, match="its pixels have a basis"):
        codec.decompress(changed)


@pytest.mark.parametrize("field,value", [("step", 1e37), ("scale", np.inf)])
def test_tables_whose_latents_would_not_be_finite(field, value):
    run = PoolingAutoencoder()
    coder, _ = latent_fit.fit(run, golden_images(), "x", bits=4)
    wrong = dataclasses.replace(coder, **{field: np.full(16, value, np.float32)})
    tables = latent_coding.pack(wrong)
    head = container.Head(container.LATENT, digest(tables), 40, 28, 28, 40, coder.bits)
    head = dataclasses.replace(head, features=container.TURNED)
    with pytest.raises(UserError, match="its tables are impossible"):
        latent_coding.restore(run, tables, head, "x")

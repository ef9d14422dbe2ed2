"""Compressed files, folders of them and zarr arrays as they are in people's loaders."""

import importlib.util

import grain
import jax
import numpy as np
import pytest
from absl import flags
from codec_models import TINY

from emnist_jax import codec
from emnist_jax.codec import zarr_images
from emnist_jax.config import compose, make_config
from emnist_jax.devices import parallel
from emnist_jax.training.step import make_train_step

BATCH = 8
WITHOUT_TORCH = importlib.util.find_spec("torch") is None


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    """64 images in two files, with their model."""
    folder = tmp_path_factory.mktemp("shards")
    options = {"model": TINY, "embed_model": True, "block_images": 8}
    codec.compress_file(folder / "0.ejx", images[:40], **options)
    codec.compress_file(folder / "1.ejx", images[40:], **options)
    return folder


@pytest.fixture
def opened(folder):
    with codec.open(folder) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["folder", "file", "array"])
def test_grain_takes_them_as_they_are(kind, folder, images, tmp_path):
    path, expected = folder, images
    if kind == "file":
        path, expected = folder / "0.ejx", images[:40]
    if kind == "array":
        path = tmp_path / "a.zarr"
        zarr_images.write(path, images, model=TINY, block_images=8)
    with codec.open(path) as opened:
        source = grain.MapDataset.source(opened).shuffle(seed=3).batch(BATCH)
        found = np.concatenate(list(source.to_iter_dataset()))
    order = list(grain.MapDataset.range(len(expected)).shuffle(seed=3))
    assert sorted(order) != order
    np.testing.assert_array_equal(found, expected[order])


@pytest.mark.long
def test_grain_feeds_the_train_step(opened, images):
    """The losses are those of the images themselves."""
    middle = np.s_[..., 10:18, 10:18, :]  # small ones train sooner
    source = grain.MapDataset.source(opened).map(lambda image: image[middle])
    batches = list(source.shuffle(seed=3).batch(BATCH).to_iter_dataset())
    config = make_config(batch_size=BATCH, decoder="model03", optimizer="adam")
    model = compose.autoencoder(config, images.mean() / 255, (8, 8))
    optimizer = compose.optimizer(config, len(batches))
    step = make_train_step(compose.loss_of(config, model), optimizer)
    step = parallel.pmapped(step, (None, 0), None)
    order = grain.MapDataset.range(len(images)).shuffle(seed=3)
    rows = np.array(list(order)).reshape(-1, BATCH)
    assert sorted(rows.reshape(-1)) == list(range(64)) != rows.reshape(-1).tolist()
    losses = []
    for fed in (batches, images[rows][middle]):
        state = jax.device_get(compose.first_state(config, model, optimizer))
        losses.append([])
        for batch in fed:
            state, values = step(state, parallel.put_split(batch))
            losses[-1].append(float(values["loss"]))
    assert len(losses[0]) == 8 and losses[0][-1] < losses[0][0]
    assert losses[0] == losses[1]


@pytest.fixture
def parsed_flags():
    """Grain's workers read flags of absl, which a program has parsed by then."""
    flags.FLAGS.mark_as_parsed()
    yield
    flags.FLAGS.unparse_flags()


@pytest.mark.long
@pytest.mark.usefixtures("parsed_flags")
@pytest.mark.filterwarnings("ignore")  # of Grain itself, about processes
def test_grain_with_workers(opened, images):
    """Its checkpoints want the same words for a source in every process."""
    loader = grain.DataLoader(
        data_source=opened,
        sampler=grain.samplers.IndexSampler(64, shuffle=True, seed=1, num_epochs=1),
        operations=[grain.transforms.Batch(BATCH)],
        worker_count=2,
    )
    iterator = iter(loader)
    first = next(iterator)
    state = iterator.get_state()
    rest = list(iterator)
    found = np.concatenate([first, *rest])
    assert sorted(map(bytes, found)) == sorted(map(bytes, images))
    again = iter(loader)
    again.set_state(state)
    np.testing.assert_array_equal(list(again), rest)


@pytest.mark.skipif(WITHOUT_TORCH, reason="torch comes with the extra [peers]")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore")  # Python 3.12 advises against forks
def test_torch_with_workers(method, opened, images):
    from torch.utils.data import DataLoader

    np.testing.assert_array_equal(opened[50], images[50])  # after use
    options = {"num_workers": 2, "multiprocessing_context": method}
    loader = DataLoader(opened, BATCH, shuffle=True, collate_fn=np.stack, **options)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [BATCH] * 8
    found = np.concatenate(batches)
    assert sorted(map(bytes, found)) == sorted(map(bytes, images))
    first = next(iter(DataLoader(opened, BATCH)))  # as tensors
    np.testing.assert_array_equal(first.numpy(), images[:BATCH])

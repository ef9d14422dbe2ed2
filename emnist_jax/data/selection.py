"""The images of a run: which of a data set train, choose the best epoch and test."""

import dataclasses

from emnist_jax.config import Config
from emnist_jax.data import own
from emnist_jax.data.load import load
from emnist_jax.data.splits import Dataset, Split, hold_out, take


@dataclasses.dataclass(frozen=True)
class Selection:
    """Images of a run; none of `validation` stands also in `train` when held out."""

    dataset: Dataset
    whole_train: Split  # train and the validation images held out of it
    train: Split
    validation: Split
    test: Split


def select(config: Config) -> Selection:
    """Loads what `config` asks for: subsets first, then the validation images.

    Raises:
      UserError: the data set cannot be had, or is smaller than the subset asked for.
    """
    if config.images is not None:
        dataset = own.load(config.images)
    else:
        dataset = load(
            config.dataset,
            data_dir=config.data_dir,
            emnist_archive=config.emnist_archive,
        )
    whole, test, seed = dataset.train, dataset.test, config.seed
    if config.train_examples is not None:
        whole = take(whole, config.train_examples, seed, flag="--train_examples")
    if config.test_examples is not None:
        test = take(test, config.test_examples, seed, flag="--test_examples")
    if config.validation == "test":
        return Selection(dataset, whole, whole, test, test)
    fraction = config.validation_fraction
    train, held_out = hold_out(whole, fraction, seed, flag="--validation_fraction")
    return Selection(dataset, whole, train, held_out, test)

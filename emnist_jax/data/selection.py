"""The images of a run: which of a data set train, choose the best epoch and test."""

import dataclasses
from typing import Any

from emnist_jax.data.splits import Dataset, Split, hold_out, take


@dataclasses.dataclass(frozen=True)
class Selection:
    """Images of a run; none of `validation` stands also in `train` when held out."""

    dataset: Dataset
    whole_train: Split  # train and the validation images held out of it
    train: Split
    validation: Split
    test: Split

    @property
    def facts(self) -> dict[str, Any]:
        """The 'dataset' part of the results."""
        return {
            "name": self.dataset.name,
            **self.dataset.source,
            "image_size": [*self.train.image_size],
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def split_up(
    dataset: Dataset,
    seed: int,
    train_examples: int | None = None,
    test_examples: int | None = None,
    validation_fraction: float | None = None,
) -> Selection:
    """Subsets of a data set first, then the validation images.

    Args:
      dataset: where from.
      seed: of subsets and validation images.
      train_examples: size of a subset of train; None for all.
      test_examples: the same of test.
      validation_fraction: part of train to hold out; None to validate on test.

    Raises:
      UserError: the data set is smaller than the subset asked for.
    """
    whole, test = dataset.train, dataset.test
    if train_examples is not None:
        whole = take(whole, train_examples, seed, flag="--train_examples")
    if test_examples is not None:
        test = take(test, test_examples, seed, flag="--test_examples")
    if validation_fraction is None:
        return Selection(dataset, whole, whole, test, test)
    setting = f"--validation_fraction={validation_fraction}"
    train, held_out = hold_out(whole, validation_fraction, seed, setting=setting)
    return Selection(dataset, whole, train, held_out, test)

"""Settings of where images come from and how they are read."""

import dataclasses

from emnist_jax.config.setting import setting

DATASETS = (
    "auto",
    "glyphs",
    *(f"emnist/{n}" for n in "balanced letters digits mnist byclass bymerge".split()),
    "mnist",
    "kmnist",
    "fashion_mnist",
    "images",
)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The part of `Config` that concerns images.

    Other commands take those of the group 'reading images' as flags of their own.
    """

    dataset: str = setting(
        "auto",
        "what to train on; auto is emnist/balanced where it can be had, else glyphs",
        group="data",
        choices=DATASETS,
    )
    data_dir: str | None = setting(
        None,
        "where tfds keeps prepared data sets [default: ~/tensorflow_datasets]",
        group="data",
        shapes_result=False,
    )
    emnist_archive: str | None = setting(
        None,
        "a copy of EMNIST in any form to prepare it from, without internet",
        group="data",
        shapes_result=False,
    )
    images: str | None = setting(
        None,
        "own images to train on, in any form (docs/data.md)",
        group="data",
        shapes_result=False,  # their pixels do, wherever they lie
    )
    test_images: str | None = setting(
        None,
        "own images to test on [default: a tenth of --images, held out]",
        group="data",
        shapes_result=False,
    )
    train_examples: int | None = setting(
        None, "seeded subset of the training images [default: all]", group="data", low=1
    )
    test_examples: int | None = setting(
        None, "seeded subset of the test images [default: all]", group="data", low=1
    )
    validation: str = setting(
        "holdout",
        "images that choose the best epoch: holdout (a seeded part of train, never "
        "an image that train holds too) or test (the published protocol)",
        group="data",
        choices=("holdout", "test"),
    )
    validation_fraction: float = setting(
        0.05, "part of train held out", group="data", low=1e-4, high=0.5
    )
    data_placement: str = setting(
        "auto",
        "where the training images live: on the device (an epoch is one compiled "
        "call) or on the host; auto is the device, except on CPU or where they "
        "do not fit",
        group="data",
        choices=("auto", "device", "host"),
        shapes_result=False,
    )
    reader: str | None = setting(
        None,
        "form of the images: npy, csv, folder, ... (any other word names them all) "
        "[default: guessed]",
        group="reading images",
        shapes_result=False,
    )
    value_range: str | None = setting(
        None,
        "LOW:HIGH, the values that are black and white, for others than uint8 and "
        "floats in 0..1 [default: of their type]",
        group="reading images",
        shapes_result=False,
    )
    invert: bool = setting(
        False,
        "turn black ink on white paper into white on black",
        group="reading images",
        shapes_result=False,
    )
    transposed: str | None = setting(
        None,
        "yes or no: whether rows and columns are exchanged in the source [default: as "
        "is known of EMNIST's files, no for others]",
        group="reading images",
        choices=("yes", "no"),
        shapes_result=False,
    )
    convert: bool = setting(
        False,
        "allow what loses something: colour, transparency, more than 8 bits",
        group="reading images",
        shapes_result=False,
    )
    resize: int | None = setting(
        None,
        "side of the square that images are centred in and resampled to [default: as "
        "they are]",
        group="reading images",
        low=1,
        high=1024,
        shapes_result=False,
    )

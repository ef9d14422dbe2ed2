"""EMNIST as a tfds builder that prepares and reads without TensorFlow."""

import contextlib
import io
import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from emnist_jax.data import emnist_source

_READ_AT_ONCE = 8192  # examples


class EmnistUpright(tfds.image_classification.EMNIST):
    """tfds' EMNIST with upright images, NIST's order and NIST's counts.

    It differs from its parent where that needs TensorFlow (raw bytes instead of
    PNG), loses the order of NIST's files (tfds shuffles by hash of the key), or
    keeps other counts than the files do (`letters`).
    """

    name = "emnist_upright"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Upright images in the order of NIST's files"}

    def __init__(self, *, archive_path: str | os.PathLike | None = None, **kwargs):
        """Initializes a builder.

        Args:
          archive_path: NIST's `gzip.zip` or another form; needed only to prepare.
          **kwargs: as for any tfds builder: `config`, `data_dir`, `file_format`.
        """
        self._archive_path = archive_path
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="EMNIST, upright, in the order of NIST's files.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=(28, 28, 1), dtype=np.uint8, encoding="bytes"
                    ),
                    "label": tfds.features.ClassLabel(
                        num_classes=self.builder_config.class_number
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.nist.gov/itl/products-and-services/emnist-dataset",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # the archive is already here, and its checksum is known
        variant = self.builder_config.name
        splits = {
            part: emnist_source.read_split(self._archive_path, variant, part)
            for part in ("train", "test")
        }
        print(
            f"preparing emnist/{variant} from {self._archive_path} (once)",
            file=sys.stderr,
        )
        return {part: self._generate_examples(*splits[part]) for part in splits}

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict]]:
        rows = tqdm(
            zip(images, labels, strict=True),
            desc=f"preparing EMNIST-{self.builder_config.name} (once)",
            total=len(labels),
            unit=" images",
            leave=False,
            disable=None,
        )
        for row, (image, label) in enumerate(rows):
            yield row, {"image": image, "label": int(label)}


def prepare(variant: str, archive_path: str | os.PathLike, folder: pathlib.Path):
    """Writes a variant of EMNIST into `folder` in tfds' array_record format.

    Args:
      variant: a config of tfds' EMNIST: `balanced`, `letters`, ...
      archive_path: what `emnist_source.read_split` takes.
      folder: tfds' `data_dir`, new or empty.

    Raises:
      UserError: the archive is not usable.
      OSError: the folder cannot be written.
    """
    try:
        with _quiet():
            _builder(variant, folder, archive_path).download_and_prepare()
    except RuntimeError as error:  # how array_record's writer tells of a full disk
        raise OSError(str(error)) from error


def read(variant: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads what `prepare` wrote.

    Returns:
      `train_images` and `test_images`, uint8 [N, 28, 28, 1], and
      `train_labels` and `test_labels`, int32 [N].
    """
    arrays = {}
    with _quiet():
        for part, source in _builder(variant, folder).as_data_source().items():
            images = np.empty([len(source), 28, 28, 1], np.uint8)
            labels = np.empty([len(source)], np.int32)
            for start in range(0, len(source), _READ_AT_ONCE):
                rows = range(start, min(start + _READ_AT_ONCE, len(source)))
                for row, example in zip(rows, source.__getitems__(rows), strict=True):
                    images[row] = example["image"]
                    labels[row] = example["label"]
            arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    return arrays


def _builder(
    variant: str,
    folder: pathlib.Path,
    archive_path: str | os.PathLike | None = None,
) -> EmnistUpright:
    return EmnistUpright(
        config=variant,
        data_dir=os.fspath(folder),
        file_format="array_record",
        archive_path=archive_path,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps tfds' own bars, prints and log lines off the terminal."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)

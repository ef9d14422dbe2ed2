"""Settings of a run: one frozen dataclass, presets, and the checks of each value."""

import dataclasses
import re

from emnist_jax.cli.errors import UserError
from emnist_jax.config.data_settings import DataSettings
from emnist_jax.config.naming import folder_name
from emnist_jax.config.setting import check, check_processes, setting
from emnist_jax.models.registry import DECODERS, LOSSES


@dataclasses.dataclass(frozen=True)
class Config(DataSettings):
    """Settings of one run; every field is a flag of `launch.py`.

    Defaults are those of the preset 'best'. Fields whose metadata say
    `shapes_result=False` may differ when a run is resumed.

    Raises:
      UserError: a value is of the wrong type, not finite or out of its range.
    """

    # Model
    decoder: str = setting(
        "model01",
        "which of the decoders",
        group="model",
        choices=tuple(DECODERS),
    )
    latent_dim: int = setting(
        32, "length of the latent vector", group="model", low=1, high=4096
    )
    latent_activation: str = setting(
        "linear",
        "activation of the latent layer; relu, as published, can leave latents dead",
        group="model",
        choices=("linear", "relu"),
    )
    initialization: str = setting(
        "glorot_uniform",
        "initial values of every kernel",
        group="model",
        choices=("glorot_uniform", "he_uniform", "lecun_normal"),
    )
    output_bias: str = setting(
        "mean",
        "initial bias of the last layer: the logit of the mean training pixel, or zero",
        group="model",
        choices=("mean", "zero"),
    )
    compute_dtype: str = setting(
        "float32",
        "computing type of the layers; bfloat16 is for accelerators, parameters and "
        "loss stay float32",
        group="model",
        choices=("float32", "bfloat16"),
    )
    init_from: str | None = setting(
        None,
        "folder of a run whose weights to start from",
        group="model",
        shapes_result=False,  # the weights do, wherever they lie
    )
    freeze: str = setting(
        "none",
        "half of --init_from that stays as it is",
        group="model",
        choices=("none", "encoder", "decoder"),
    )
    # Training
    preset: str = setting(
        "best",
        "best has the lowest error on validation images at equal cost; robust is the "
        "same with Adam; published repeats the published recipe as Keras runs it; a "
        "flag given by hand overrides its preset",
        group="training",
        choices=("best", "robust", "published"),
    )
    epochs: int = setting(
        15, "passes over the training images at most", group="training", low=1
    )
    batch_size: int = setting(
        128, "images a step, over all devices", group="training", low=1
    )
    learning_rate: float = setting(
        5e-3, "peak learning rate", group="training", low=1e-8, high=10.0
    )
    optimizer: str = setting(
        "muon",
        "adam as in the paper (epsilon 1e-8), or keras_adam: epsilon 1e-7 before the "
        "bias correction, as Keras has it; muon makes the steps of every kernel "
        "orthogonal",
        group="training",
        choices=("adam", "keras_adam", "muon"),
    )
    schedule: str = setting(
        "cosine",
        "learning rate over the run: constant, cosine to 0, or plateau (x0.1 after 5 "
        "epochs without improvement of 1e-4, not under 1e-4)",
        group="training",
        choices=("plateau", "cosine", "constant"),
    )
    warmup_steps: int = setting(
        100,
        "steps of linear warm-up of the learning rate, at most a fifth of the run",
        group="training",
        low=0,
    )
    shift_pixels: int = setting(
        1,
        "move each training image at random by up to so many pixels along both axes",
        group="training",
        low=0,
        high=14,
    )
    deform: float = setting(
        0.0,
        "share of training images that are slanted, stretched and bent at random, as "
        "another hand might have written them",
        group="training",
        low=0,
        high=1,
    )
    noise: float = setting(
        0.0,
        "standard deviation, of white 1, of noise on the images that go in; those that "
        "are to come out have none: trains a denoiser",
        group="training",
        low=0,
        high=1,
    )
    hole: int = setting(
        0,
        "side of a square in each image that goes in, anywhere, that is black; those "
        "that are to come out have none: trains to fill it in",
        group="training",
        low=0,
        high=64,
    )
    early_stopping_patience: int = setting(
        0,
        "stop after so many epochs without a better validation loss (0: never)",
        group="training",
        low=0,
    )
    loss: str = setting(
        "mse",
        "what training minimises, and what chooses the best epoch",
        group="training",
        choices=tuple(LOSSES),
    )
    seed: int = setting(
        0,
        "seed of initial values, order of the images, subsets and validation images",
        group="training",
        low=0,
        high=2**31 - 1,
    )
    # Run
    workdir: str = setting(
        "runs", "folder of all runs", group="run", shapes_result=False
    )
    run_name: str | None = setting(
        None,
        "folder of this run [default: <dataset>-<decoder>-<preset>-seed<seed>, and "
        "every other setting that differs from its preset]",
        group="run",
        shapes_result=False,
    )
    checkpoint_minutes: float = setting(
        5.0,
        "minutes between checkpoints inside an epoch",
        group="run",
        low=0.0,
        high=1e6,
        shapes_result=False,
    )
    tensorboard: bool = setting(
        False,
        "write TensorBoard events too (extra [tensorboard])",
        group="run",
        shapes_result=False,
    )
    profile: bool = setting(
        False,
        "trace steps 10 to 20 into the run's profile/ folder",
        group="run",
        shapes_result=False,
    )
    compilation_cache: bool = setting(
        True,
        "keep compiled programs in the user's cache folder for the next start",
        group="run",
        shapes_result=False,
    )
    # Devices
    distributed: bool = setting(
        False,
        "train over several processes; on TPU pods and Slurm nothing else is needed",
        group="devices",
        shapes_result=False,
    )
    coordinator_address: str | None = setting(
        None, "host:port of process 0", group="devices", shapes_result=False
    )
    num_processes: int | None = setting(
        None,
        "how many processes there are",
        group="devices",
        low=1,
        shapes_result=False,
    )
    process_id: int | None = setting(
        None,
        "which of them this is, from 0",
        group="devices",
        low=0,
        shapes_result=False,
    )

    def __post_init__(self):
        """Checks every value against its field's type, range and choices."""
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        if self.run_name is not None and not re.fullmatch(
            r"[\w][\w.+-]{,99}", self.run_name
        ):
            raise UserError(
                f"--run_name={self.run_name!r}: must be a plain folder name of at most "
                "100 letters, digits, '_', '.', '+' and '-'"
            )
        if self.images is not None and self.dataset not in ("auto", "images"):
            raise UserError(
                f"--images={self.images}: does not go with --dataset={self.dataset}"
            )
        if self.images is None and self.dataset == "images":
            raise UserError("--dataset=images: needs --images=FILE.npy")
        if self.images is None and self.test_images is not None:
            raise UserError(
                f"--test_images={self.test_images}: needs --images=FILE.npy"
            )
        if self.freeze != "none" and self.init_from is None:
            raise UserError(f"--freeze={self.freeze}: needs --init_from=RUN")
        check_processes(self)

    @property
    def name(self) -> str:
        """Name of the run's folder: every setting that is not the preset's is in it."""
        return self.run_name or folder_name(self)

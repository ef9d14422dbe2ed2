"""What bfloat16 products do to quality: those that a TPU makes of float32 by default.

  python -m experiments.products --run=pretrained/model02 --images=test.npy \
      --out=experiments/results/products.json

Emulated on the CPU: the operands of every convolution and dense layer are rounded to
bfloat16, sums and all else stay float32, as on a TPU. A minute for 18,800 images.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np

from emnist_jax import read_images
from emnist_jax.cli.command import run_command
from emnist_jax.devices import parallel
from emnist_jax.models import metrics
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.runs import Run, load_run
from experiments import study, tables

# By name: whether the encoder's and the decoder's operands are rounded.
WHERE = {
    "nowhere": (False, False),
    "encoder": (True, False),
    "decoder": (False, True),
    "both": (True, True),
}


def rounded(tree):
    """Arrays of a tree with values that bfloat16 has, in their own type."""
    return jax.tree.map(lambda x: jax.lax.reduce_precision(x, 8, 7), tree)


def with_rounded_operands(apply: Callable) -> Callable:
    """`apply(variables, inputs)` of a module, the operands of products rounded."""

    def rounding(call, arguments, options, context):
        params = context.module.variables.get("params", {})
        product = context.method_name == "__call__" and hasattr(
            params.get("kernel"), "shape"
        )
        return call(*(rounded(arguments) if product else arguments), **options)

    def call(variables, inputs):
        kernels = jax.tree_util.tree_map_with_path(
            lambda path, x: rounded(x) if path[-1].key == "kernel" else x, variables
        )
        with nn.intercept_methods(rounding):
            return apply(kernels, inputs)

    return call


def measure(run: Run, images: np.ndarray) -> dict[str, dict[str, float]]:
    """Quality with rounded operands in each of `WHERE`, means over images.

    Args:
      run: the trained model.
      images: uint8 [N, H, W, 1].
    """
    halves = [run.encoder, run.decoder]
    found, exact = {}, {}
    for name, where in WHERE.items():
        applied = [
            with_rounded_operands(module.apply) if rough else module.apply
            for (module, _), rough in zip(halves, where, strict=True)
        ]

        def step(params, images, applied=applied):
            targets = to_unit_range(images)
            latents = applied[0]({"params": params[0]}, targets)
            outputs = applied[1]({"params": params[1]}, latents)
            return {"latents": latents, "images": outputs} | metrics.quality(
                targets, outputs
            )

        params = [params for _, params in halves]
        values = parallel.map_rows(step, params, images, f"rounding: {name}")
        outputs = {key: values.pop(key) for key in ("latents", "images")}
        exact = exact or outputs
        found[name] = {key: float(value.mean()) for key, value in values.items()}
        for key, value in outputs.items():
            found[name][f"{key}_off_by"] = float(np.abs(value - exact[key]).max())
        found[name]["latents_spread"] = float(exact["latents"].std())
    return found


def format_markdown(record: dict) -> str:
    """The results as Markdown."""
    headings = (
        "operands rounded in | MSE | PSNR dB | SSIM | latents off by | pixels off by"
    )
    rows = [
        (
            name,
            f"{row['mse']:.7f}",
            f"{row['psnr']:.4f}",
            f"{row['ssim']:.6f}",
            f"{row['latents_off_by']:.3g}",
            f"{255 * row['images_off_by']:.2f} / 255",
        )
        for name, row in record["rounded"].items()
    ]
    return (
        f"{tables.plain(record['run'])}, {record['images']:,} images, latents with a "
        f"standard deviation of {record['rounded']['nowhere']['latents_spread']:.2f}; "
        "off by: at most\n\n" + tables.markdown(headings, rows)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add = parser.add_argument
    add("--run", default="pretrained/model02", help="a run's folder")
    add("--images", required=True, help="images in any form (docs/data.md)")
    add("--out", required=True, help="a .json file; a .md goes along")
    flags = parser.parse_args(argv)
    out = study.check_output(flags.out, flags.images)
    run, images = load_run(flags.run, flag="--run"), read_images(flags.images).images
    found = measure(run, np.asarray(images)[..., None])
    record = {"run": flags.run, "images": len(images), "rounded": found}
    text = format_markdown(record)
    study.write(out.with_suffix(""), record, text)


if __name__ == "__main__":
    run_command(main)

"""What latents keep of the characters: simple classifiers on them, and a map.

  python -m experiments.probes --workdir=W --runs=RUN[,RUN...]

A linear probe (multinomial logistic regression) and k nearest neighbours learn the
classes from the training images' latents, each distinct image once, and are tested on
the test images', beside the same on raw pixels and on as many principal components.
The first run names the data. Each row is kept in a JSON file in W and not computed
again; `probes.md`, `probes.json` and `map.png` (the first run's test latents along
their two principal directions) are made from files alone.
"""

import pathlib
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from emnist_jax.cli.arguments import comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.data.selection import Selection
from emnist_jax.runs import Run, load_run
from emnist_jax.runs.plots import STYLE, save
from emnist_jax.storage import files
from emnist_jax.storage.arrays import open_array, read_archive, write_archive
from experiments import pca, study, tables

NEIGHBOURS = 5
MOST_ITERATIONS = 500
PENALTY = 1e-4  # half the squared weights, beside the mean log loss


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, classes: int
) -> tuple[np.ndarray, int | None]:
    """Labels that multinomial logistic regression gives to `test`.

    Args:
      train: float32 `[N, D]`; columns are standardised.
      train_labels: integers `[N]`.
      test: float32 `[M, D]`.
      classes: how many there are.

    Returns:
      The labels `[M]`, and after how many iterations the fit converged; None if
      `MOST_ITERATIONS` were not enough.
    """
    from scipy.optimize import minimize

    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1)
    train = np.column_stack([(train - mean[None]) / scale[None], np.ones(len(train))])
    test = np.column_stack([(test - mean[None]) / scale[None], np.ones(len(test))])
    train, test = train.astype(np.float32), test.astype(np.float32)
    rows, shape = np.arange(len(train)), (train.shape[1], classes)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        scores = train @ weights.astype(np.float32)
        scores -= scores.max(axis=1, keepdims=True)
        chosen = scores[rows, train_labels]
        np.exp(scores, out=scores)
        sums = scores.sum(axis=1)
        value = float((np.log(sums) - chosen).mean(dtype=np.float64))
        scores /= sums[:, None]
        scores[rows, train_labels] -= 1
        gradient = (train.T @ scores).astype(np.float64) / len(train)
        value += PENALTY / 2 * float((weights**2).sum())
        return value, (gradient + PENALTY * weights).ravel()

    start = np.zeros(shape[0] * shape[1])
    options = {"maxiter": MOST_ITERATIONS, "maxfun": 2 * MOST_ITERATIONS}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    labels = (test @ found.x.reshape(shape).astype(np.float32)).argmax(axis=1)
    return labels, found.nit if found.success else None


def nearest_neighbours(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, classes: int
) -> np.ndarray:
    """Labels by vote of the `NEIGHBOURS` nearest; ties go to the nearest voter."""
    squares = (train**2).sum(axis=1)
    votes_by_rank = 1 + 1e-3 * 0.5 ** np.arange(NEIGHBOURS)
    labels = []
    for start in range(0, len(test), 512):
        distances = squares[None] - 2 * test[start : start + 512] @ train.T
        nearest = np.argpartition(distances, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        near = np.take_along_axis(distances, nearest, axis=1)
        order = np.argsort(near, axis=1, kind="stable")
        voters = train_labels[np.take_along_axis(nearest, order, axis=1)]
        votes = np.zeros((len(voters), classes))
        np.add.at(votes, (np.arange(len(voters))[:, None], voters), votes_by_rank)
        labels.append(votes.argmax(axis=1))
    return np.concatenate(labels)


def probe(name: str, train, train_labels, test, test_labels, classes: int) -> dict:
    """One row of the table: accuracies on the test rows."""
    row = {"features": name, "dimensions": train.shape[1]}
    row |= {"train": len(train), "test": len(test)}
    found, iterations = linear_probe(train, train_labels, test, classes)
    row |= {"linear_probe": float((found == test_labels).mean())}
    row |= {"linear_probe_iterations": iterations}
    found = nearest_neighbours(train, train_labels, test, classes)
    return row | {"nearest_neighbours": float((found == test_labels).mean())}


def measure_missing(
    workdir: pathlib.Path, runs: list[Run], data: Selection, limit: int | None
) -> None:
    """Computes the rows that have no file yet, and the coordinates of the map.

    Args:
      workdir: where the files go.
      runs: finished runs on one data set.
      data: the images of the first run.
      limit: use only so many training images, or None.

    Raises:
      UserError: the images have no classes, are too few, or differ between runs.
    """
    classes = len(data.dataset.class_names)
    if classes < 2:
        raise UserError(f"--runs={runs[0].path}: its images have no classes to tell")
    flat = data.whole_train.images[:limit].reshape(-1, 784)
    # Of equal images one: the nearest five would often be five copies of one.
    kept = np.sort(np.unique(flat, axis=0, return_index=True)[1])
    if len(kept) <= NEIGHBOURS:
        raise UserError(f"{len(kept)} different training images are too few to probe")
    images, test_images = data.whole_train.images[kept], data.test.images
    train_labels, test_labels = data.whole_train.labels[kept], data.test.labels

    def features(name: str, make) -> None:
        path = workdir / f"{name}.json"
        if not path.exists():
            print(name, flush=True)
            train, test = make()
            row = probe(name, train, train_labels, test, test_labels, classes)
            files.write_json(path, row)

    for run in runs:
        features(
            run.path.name,
            lambda r=run: (_latents(r, data, "train")[kept], _latents(r, data, "test")),
        )
    count = min(runs[0].latent_dim, 784)

    def component_features() -> tuple[np.ndarray, np.ndarray]:
        fitted = pca.fit(images, count)
        return fitted.encode(images), fitted.encode(test_images)

    features(f"pca{count}", component_features)
    features("pixels", lambda: tuple(_pixels(x) for x in (images, test_images)))
    _write_map(workdir, runs[0], data)


def _latents(run: Run, data: Selection, split: str) -> np.ndarray:
    path = run.path / "latents" / split
    ours = {"train": data.whole_train, "test": data.test}[split]
    for name, values in (("labels", ours.labels), ("indices", ours.indices)):
        if not np.array_equal(open_array(f"{path}_{name}.npy"), values):
            raise UserError(f"--runs: {run.path}: {split} {name} are not the data's")
    return np.array(open_array(f"{path}.npy"))


def _write_map(workdir: pathlib.Path, run: Run, data: Selection) -> None:
    test = _latents(run, data, "test")
    centred = test - test.mean(axis=0)[None]
    directions = np.linalg.svd(centred, full_matrices=False)[2]
    map_arrays = {
        "points": (centred @ directions[:2].T).astype(np.float32),
        "labels": data.test.labels,
        "class_names": np.array(data.dataset.class_names),
        "run": run.path.name,
    }
    write_archive(workdir / "map.npz", map_arrays)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def draw_map(workdir: pathlib.Path) -> pathlib.Path:
    """Every test image a point; every class' name at its mean."""
    found = read_archive(workdir / "map.npz")
    points, labels, names = found["points"], found["labels"], found["class_names"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 5))
        colors = plt.get_cmap("turbo")(labels / max(1, len(names) - 1))
        axes.scatter(*points.T, s=2, c=colors, alpha=0.35, linewidths=0)
        for label, name in enumerate(names):
            if (labels == label).any():
                at = points[labels == label].mean(axis=0)
                axes.text(*at, name, ha="center", va="center", fontweight="bold")
        axes.set(
            xlabel="first principal direction",
            ylabel="second",
            title=f"{found['run']}: latents of the test images, class means",
        )
    return save(figure, workdir / "map.png")


def format_markdown(rows: list[dict]) -> str:
    """The rows as a Markdown table, best linear probe first."""
    return tables.markdown(
        f"features | numbers an image | linear probe | {NEIGHBOURS} nearest",
        (
            (
                tables.plain(row["features"]),
                row["dimensions"],
                f"{row['linear_probe']:.3f}",
                f"{row['nearest_neighbours']:.3f}",
            )
            for row in sorted(rows, key=lambda row: -row["linear_probe"])
        ),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "scipy")
    parser.add_workdir()
    add, help = parser.add_argument, "folders of finished runs, comma-separated"
    add("--runs", type=comma_separated(), required=True, help=help)
    add("--probe_examples", type=count, help="use only so many training images")
    parser.add_paths()
    flags = parser.parse_args(argv)
    workdir = pathlib.Path(flags.workdir)
    runs = [load_run(path, flag="--runs") for path in flags.runs]
    if len({run.path.name for run in runs}) < len(runs):
        raise UserError(
            f"--runs={','.join(flags.runs)}: two folders have the same name"
        )
    study.claim_folder(workdir, "probes", flags, "probe_examples")
    data = study.images_of(runs[0], flags)
    measure_missing(workdir, runs, data, flags.probe_examples)
    found = [files.read_json(path) for path in sorted(workdir.glob("*.json"))]
    rows = [row for row in found if "linear_probe" in row]
    draw_map(workdir)
    study.write(workdir / "probes", {"rows": rows}, format_markdown(rows))


if __name__ == "__main__":
    run_command(main)

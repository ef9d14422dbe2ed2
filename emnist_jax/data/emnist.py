"""EMNIST: prepared once by tfds from NIST's archive, then read in a moment.

Everything lives under `<data_dir>/emnist_jax/<variant>-<sha256 of the archive>/`:
tfds' own array_record files, the same as `.npy`, and a manifest. Another archive
is another folder, so two can never mix.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive, download, emnist_source, prepared
from emnist_jax.data.splits import Dataset, Split
from emnist_jax.storage import files, paths


def load(
    variant: str,
    *,
    data_dir: str | os.PathLike | None = None,
    emnist_archive: str | os.PathLike | None = None,
) -> Dataset:
    """Loads a variant of EMNIST; prepares it first if that was not done yet.

    Args:
      variant: a key of `archive.VARIANTS`. Labels are NIST's: those of `letters`
        run from 1 to 26, and its `class_names[0]` is empty.
      data_dir: as in tfds: None means `$TFDS_DATA_DIR` or
        `~/tensorflow_datasets`.
      emnist_archive: a copy of EMNIST in any form of `emnist_source`; None means
        NIST's own `gzip.zip`, downloaded if it was not prepared before.

    Returns:
      The data set, in the order of NIST's files. Its `source` has `kind`
      (`tfds`), `title`, `official` (whether the archive is NIST's),
      `archive_sha256` and `builder`.

    Raises:
      download.Unavailable: it would have to be downloaded and cannot be.
      UserError: the archive is not usable, or `data_dir` cannot be written.
    """
    home = data_folder(data_dir)
    if emnist_archive is None:
        sha256 = archive.NIST_SHA256
    else:
        sha256 = _fingerprint(home, pathlib.Path(emnist_archive), variant)
    arrays = _load_arrays(home, variant, emnist_archive, sha256)
    official = sha256 == archive.NIST_SHA256
    facts = archive.VARIANTS[variant]
    title = facts.title if official else _other_title(emnist_archive, sha256)
    splits = {
        part: Split(
            images=arrays[f"{part}_images"],
            labels=arrays[f"{part}_labels"],
            indices=np.arange(len(arrays[f"{part}_labels"])),
        )
        for part in ("train", "test")
    }
    return Dataset(
        name=f"emnist/{variant}",
        **splits,
        class_names=facts.class_names,
        source={
            "kind": "tfds",
            "title": title,
            "official": official,
            "archive_sha256": sha256,
            "builder": f"emnist_upright/{variant}",
        },
    )


def _other_title(path: str | os.PathLike, sha256: str) -> str:
    """What to call results on an archive that is not NIST's own."""
    if not emnist_source.is_nists(pathlib.Path(path)):
        return "EMNIST (unverified copy)"  # NIST's checksum is of gzip.zip alone
    print(
        f"warning: --emnist_archive={path} is not NIST's archive (its sha256 is "
        f"{sha256}): call results on it results on a stand-in",
        file=sys.stderr,
    )
    return "EMNIST (stand-in split)"


def data_folder(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """Returns tfds' folder for data sets, by tfds' own rule."""
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    if "://" in os.fspath(data_dir):
        raise UserError(f"--data_dir={data_dir} must be a folder of this machine")
    path = pathlib.Path(os.path.expanduser(data_dir))
    if path.parts[:1] == ("~",):
        raise UserError(f"--data_dir={data_dir}: you have no home folder; name another")
    return path.absolute()


def _load_arrays(
    home: pathlib.Path,
    variant: str,
    emnist_archive: str | os.PathLike | None,
    sha256: str,
) -> dict[str, np.ndarray]:
    """Reads what is prepared, repairs it, or prepares it."""
    folder = home / "emnist_jax" / f"{variant}-{sha256[:16]}"
    facts = {"variant": variant, "archive_sha256": sha256}
    try:
        return prepared.read(folder, facts)
    except prepared.Missing:
        if emnist_archive is None and not download.cached_path(home).exists():
            download.check_reachable()
    except prepared.Damaged as damage:
        print(
            f"warning: the prepared data in {folder} are damaged ({damage}): "
            "preparing them again",
            file=sys.stderr,
        )
    with sole_writer(folder):
        with contextlib.suppress(prepared.Missing, prepared.Damaged):
            return prepared.read(folder, facts)  # another process has done it
        with contextlib.suppress(prepared.Missing, prepared.Damaged):
            return _repair(folder, variant, facts)
        source = emnist_archive or download.fetch(home)
        return _prepare(folder, variant, facts, source)


def _repair(folder: pathlib.Path, variant: str, facts: dict) -> dict[str, np.ndarray]:
    """Writes the arrays again from tfds' own files, if those are sound."""
    manifest = prepared.read_manifest(folder, facts)
    from emnist_jax.data import builder  # tfds takes long to import

    try:
        arrays = builder.read(variant, folder)
    except Exception as error:  # whatever a reader does on damaged files
        raise prepared.Damaged(str(error)) from error
    prepared.check(arrays, manifest)
    prepared.write(folder, arrays, facts)
    return arrays


def _prepare(
    folder: pathlib.Path, variant: str, facts: dict, source: str | os.PathLike
) -> dict[str, np.ndarray]:
    """Makes the folder anew from an archive, all of it or nothing."""
    from emnist_jax.data import builder  # tfds takes long to import

    with files.write_folder(folder, ("manifest.json", "emnist_upright")) as temporary:
        builder.prepare(variant, source, temporary)
        arrays = builder.read(variant, temporary)
        prepared.write(temporary, arrays, facts)
    return arrays


@contextlib.contextmanager
def sole_writer(folder: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time write below the folder's parent.

    The lock goes with its process, however that ends; what a dead one has left
    half-written is removed.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(
                open(folder.parent / ".lock", "a", opener=paths.no_link)
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting: another process prepares the data", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"--data_dir={folder.parent.parent} cannot be written: "
                f"{error.strerror or error}"
            ) from error
        files.remove_leftovers(folder.parent, folder.name)
        files.remove_leftovers(folder)
        yield


def _fingerprint(home: pathlib.Path, path: pathlib.Path, variant: str) -> str:
    """The archive's SHA-256; of several files that of theirs with their names."""
    parts = emnist_source.parts_of(path, variant)
    if parts == [path]:
        return _cached_sha256(home, path)
    lines = [f"{part.name} {_cached_sha256(home, part)}\n" for part in parts]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _cached_sha256(home: pathlib.Path, path: pathlib.Path) -> str:
    """Returns the archive's SHA-256, hashed again only if the file has changed."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(
            f"--emnist_archive={path} cannot be read: {error.strerror or error}"
        ) from error
    cache_file = home / "emnist_jax" / "archives.json"
    name = str(path.absolute())
    stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    try:
        cache = files.read_json(cache_file)
    except UserError:
        cache = {}
    match cache.get(name):
        case {"stamp": known, "sha256": str(sha256)} if known == stamp:
            return sha256
    sha256 = archive.sha256(path)
    with contextlib.suppress(UserError):  # only slower without it
        files.write_json(
            cache_file, {**cache, name: {"stamp": stamp, "sha256": sha256}}
        )
    return sha256

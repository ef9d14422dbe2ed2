"""What a bulk job is, and what is done of it: `index.json` in its folder.

While a job is under way `records/` holds a record a shard, written by whoever did the
shard; when all are there they become `index.json`, and `records/` goes.
"""

import dataclasses
import os
import re
from collections.abc import Iterable
from typing import Any

from emnist_jax import __version__
from emnist_jax.bulk import places
from emnist_jax.cli.errors import UserError

SCHEMA = "emnist_jax.bulk/1"
INDEX, RECORDS, JOB = "index.json", "records", "job.json"
RESERVED = (INDEX, RECORDS)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Job:
    """What is done to every shard.

    Attributes:
      command: 'encode', 'decode', 'compress' or 'decompress'.
      out: the folder of the outputs.
      run: folder of the autoencoder, or None.
      coding: options of the codec, for `options.Options`.
      reading: options of `read_images`.
      weights: digests of what is trained, by name.
      form: 'zarr' to compress into zarr arrays, None for files.
    """

    command: str
    out: str
    run: str | None
    coding: dict[str, Any]
    reading: dict[str, Any]
    weights: dict[str, str]
    form: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What two calls must share to be of one job: all that shapes the output."""
        given = {**self.coding, **self.reading, "form": self.form, "model": None}
        given = {k: v for k, v in given.items() if v not in (None, False)}
        return {"command": self.command, **given, **self.weights}


def begin(job: Job) -> dict[str, dict]:
    """Makes the job's folder, or finds what has been done in it.

    Returns:
      Records by names of shards, of the last call that ended.

    Raises:
      UserError: the folder holds something else, or another job, or a damaged index.
    """
    there = places.names(job.out)
    if os.path.islink(places.join(job.out, RECORDS)):  # who knows where it leads
        raise UserError(f"--out={job.out}: {RECORDS} in it is a link; remove it")
    about = places.join(places.join(job.out, RECORDS), JOB)
    if INDEX in there:
        name = places.join(job.out, INDEX)
        content = places.read_json(name)
        _expect(job, name, content)
        records = content.get("shards")
        if not isinstance(records, list) or not all(map(_is_record, records)):
            raise _damaged(name)
        return {record["shard"]: record for record in records}
    if RECORDS in there and places.exists(about):
        _expect(job, about, places.read_json(about))
        return {}
    if there:
        raise UserError(
            f"--out={job.out}: holds {min(there)} and no {INDEX}: it is not the folder "
            "of a bulk job; choose another"
        )
    places.write_json(about, {"schema": SCHEMA, "job": job.identity})
    return {}


def finish(job: Job, records: Iterable[dict]) -> None:
    """Writes the index of a job of which all is done, and removes its records."""
    ordered = sorted(records, key=lambda record: record["shard"])
    content = {
        "schema": SCHEMA,
        "emnist_jax": __version__,
        "job": job.identity,
        "rows": sum(record["rows"] for record in ordered),
        "shards": ordered,
    }
    places.write_json(places.join(job.out, INDEX), content)
    folder = places.join(job.out, RECORDS)
    if RECORDS in places.names(job.out):
        kept = places.names(folder)
        for name in [*(f"{record['shard']}.json" for record in ordered), JOB]:
            if name in kept:
                places.remove(places.join(folder, name))
        places.remove(folder)


def keep_record(job: Job, record: dict) -> None:
    """Writes the record of a shard."""
    places.write_json(_record_path(job, record["shard"]), record)


def kept_record(job: Job, shard: str) -> dict | None:
    """The record of a shard, if its job is under way.

    Raises:
      UserError: it is damaged.
    """
    name = _record_path(job, shard)
    if not places.exists(name):
        return None
    record = places.read_json(name)
    if not _is_record(record) or record["shard"] != shard:
        raise _damaged(name)
    return record


def _record_path(job: Job, shard: str) -> str:
    return places.join(places.join(job.out, RECORDS), f"{shard}.json")


def _expect(job: Job, name: str, content: dict) -> None:
    theirs, ours = content.get("job"), job.identity
    if content.get("schema") != SCHEMA or not isinstance(theirs, dict):
        raise _damaged(name)
    differing = [
        f"{key}={theirs.get(key)!r} (now {ours.get(key)!r})"
        for key in sorted(ours.keys() | theirs.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if differing:
        raise UserError(
            f"--out={job.out}: belongs to another job: {', '.join(differing)}; choose "
            "another folder"
        )


def _damaged(name: str) -> UserError:
    return UserError(
        f"{name} is damaged, or not of a bulk job ({SCHEMA}): restore it, or choose "
        "another --out"
    )


def _is_record(record: Any) -> bool:
    """Whether a value from outside has the form of a record."""
    if not isinstance(record, dict) or not _is_digest(record):
        return False
    shard, source = record.get("shard"), record.get("source")
    named = isinstance(shard, str) and "/" not in shard and shard not in RESERVED
    counted = type(record.get("rows")) is int and record["rows"] >= 0
    known = isinstance(source, dict) and isinstance(source.get("path"), str)
    return named and counted and known and _is_digest(source)


def _is_digest(value: dict) -> bool:
    size, found = value.get("bytes"), value.get("sha256")
    whole = type(size) is int and size >= 0
    return whole and isinstance(found, str) and bool(_SHA256.fullmatch(found))

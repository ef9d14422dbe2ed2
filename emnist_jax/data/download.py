"""NIST's archive from the network, which gives up soon when there is none."""

import contextlib
import pathlib
import sys
import threading
import time
import typing

from tqdm import tqdm

from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive
from emnist_jax.storage import paths

if typing.TYPE_CHECKING:
    import requests

# Seconds for name look-up, connection and the answer's header, all together: a
# firewall that swallows packets would otherwise hold a run up for minutes.
ANSWER_WITHIN = 3.0
# Seconds without a byte after which a transfer counts as broken.
STALLED_AFTER = 30.0

# The name under which tfds keeps the same download, so that either finds it.
_TFDS_NAME = (
    "biometrics.nist.gov_cs_links_EMNIST_gzip-"
    "5u2fjN3KpzAuJXk7PNtLPNb6LcJaTw1ZM6ioBn82o4.zip"
)


class Unavailable(UserError):
    """A data set is not on this machine and cannot be fetched now."""


def cached_path(data_dir: pathlib.Path) -> pathlib.Path:
    """Returns where the downloaded archive is kept, whether it is there or not."""
    return data_dir / "downloads" / "emnist" / _TFDS_NAME


def check_reachable() -> None:
    """Asks NIST for the archive and hangs up when the answer begins.

    Raises:
      Unavailable: no answer within `ANSWER_WITHIN` seconds, or a refusal.
    """
    _open(archive.NIST_URL, resume_at=0).close()


def fetch(data_dir: pathlib.Path) -> pathlib.Path:
    """Returns the archive's path; downloads it first unless it is cached.

    A broken transfer leaves a `.part` file where the next call goes on. One
    process at a time may call this.

    Args:
      data_dir: the folder for data sets.

    Raises:
      Unavailable: no network, a broken transfer, or other content.
      UserError: the disk is full or not writable.
    """
    path = cached_path(data_dir)
    fetch_file(archive.NIST_URL, archive.NIST_SHA256, path)
    return path


def fetch_file(url: str, sha256: str, path: pathlib.Path) -> None:
    """Downloads `url` to `path` unless it is there; raises as `fetch`."""
    if path.exists():
        if archive.sha256(path) == sha256:
            return
        print(f"warning: {path} is damaged: downloading it again", file=sys.stderr)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, part)
        if archive.sha256(part) != sha256:
            part.unlink()
            raise Unavailable(
                f"what {url} sent is not what is known: its sha256 is not {sha256}"
            )
        part.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {part}: {error.strerror or error}") from error


def _transfer(url: str, part: pathlib.Path) -> None:
    """Appends to `part` until it holds everything."""
    import requests

    start = part.stat().st_size if part.exists() else 0
    with contextlib.closing(_open(url, start)) as response:
        resumed = response.status_code == requests.codes.partial_content
        start = start if resumed else 0
        rest = response.headers.get("Content-Length")
        with (
            open(part, "ab" if resumed else "wb", opener=paths.no_link) as file,
            tqdm(
                desc=f"downloading {url.rpartition('/')[2]} (once)",
                total=start + int(rest) if rest else None,
                initial=start,
                unit="B",
                unit_scale=True,
                leave=False,
                disable=None,
            ) as progress,
        ):
            try:
                for block in response.iter_content(1 << 14):
                    file.write(block)
                    progress.update(len(block))
            except requests.RequestException as error:
                raise Unavailable(
                    f"the download of {url} broke off after {file.tell()} bytes "
                    f"({_reason(error)}); the same command goes on from there"
                ) from error


def _open(url: str, resume_at: int) -> "requests.Response":
    """Sends the request and returns the answer with its body still to come."""
    import requests

    headers = {"Accept-Encoding": "identity"}
    if resume_at:
        headers["Range"] = f"bytes={resume_at}-"
    outcome = []

    def ask():
        try:
            outcome.append(
                requests.get(
                    url,
                    headers=headers,
                    stream=True,
                    timeout=(ANSWER_WITHIN, STALLED_AFTER),
                )
            )
        except Exception as error:  # is told in the caller's thread
            outcome.append(error)

    # A thread, because a name look-up cannot be given a time limit.
    thread = threading.Thread(target=ask, daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(ANSWER_WITHIN)
    if not outcome:
        waited = time.monotonic() - began
        raise Unavailable(f"{url} did not answer within {waited:.0f} s")
    answer = outcome[0]
    if isinstance(answer, Exception):
        raise Unavailable(f"{url} cannot be reached ({_reason(answer)})") from answer
    if answer.status_code == requests.codes.requested_range_not_satisfiable:
        answer.close()
        return _open(url, resume_at=0)
    if not answer.ok:
        answer.close()
        raise Unavailable(f"{url} answered with status {answer.status_code}")
    return answer


def _reason(error: BaseException) -> str:
    """Returns the innermost cause of a network error."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time

import pytest
from emnist_tools import assert_holds, write_archive

from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive, download, emnist

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, with ranges, and misbehaves as `server.behaviour` says."""

    def do_GET(self):
        behaviour = self.server.behaviour
        content = self.server.content
        start = 0
        self.server.ranges.append(self.headers.get("Range"))
        if behaviour == "missing":
            self.send_error(404)
            return
        if self.headers.get("Range") and behaviour != "no ranges":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) // 2 if behaviour in ("breaks", "stalls") else len(content)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content[start:end])
        if behaviour == "stalls":
            self.server.release.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def nist(tmp_path, monkeypatch):
    """A server that stands for NIST's, with a small archive."""
    path = tmp_path / "served.zip"
    splits = write_archive(path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.behaviour = path.read_bytes(), "good"
    server.ranges, server.release = [], threading.Event()
    server.splits = splits
    monkeypatch.setattr(archive, "NIST_SHA256", archive.sha256(path))
    monkeypatch.setattr(
        archive, "NIST_URL", f"http://127.0.0.1:{server.server_port}/gzip.zip"
    )
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


def load(tmp_path):
    return emnist.load("balanced", data_dir=tmp_path / "data")


def part_file(tmp_path):
    path = download.cached_path(tmp_path / "data")
    return path.with_name(path.name + ".part")


def test_downloads_once(nist, tmp_path, capsys):
    dataset = load(tmp_path)
    assert_holds(dataset, nist.splits)
    assert dataset.source["official"] is True
    assert "warning" not in capsys.readouterr().err
    assert not part_file(tmp_path).exists()
    asked = len(nist.ranges)
    assert_holds(load(tmp_path), nist.splits)
    with pytest.raises(UserError, match="no member gzip/emnist-digits"):
        emnist.load("digits", data_dir=tmp_path / "data")
    assert len(nist.ranges) == asked
    assert data.load("auto", data_dir=tmp_path / "data").name == "emnist/balanced"


def test_broken_download_says_so_and_goes_on_later(nist, tmp_path):
    nist.behaviour = "breaks"
    half = len(nist.content) // 2
    with pytest.raises(download.Unavailable, match="broke off") as caught:
        load(tmp_path)
    kept = part_file(tmp_path).stat().st_size
    assert half - 2**14 < kept <= half
    assert f"after {kept} bytes" in str(caught.value)
    nist.behaviour = "good"
    assert_holds(load(tmp_path), nist.splits)
    assert nist.ranges[-1] == f"bytes={kept}-"


def test_download_starts_again_where_ranges_are_refused(nist, tmp_path):
    nist.behaviour = "breaks"
    with pytest.raises(download.Unavailable):
        load(tmp_path)
    nist.behaviour = "no ranges"
    assert_holds(load(tmp_path), nist.splits)


def test_download_starts_again_when_nothing_is_left_to_send(nist, tmp_path):
    part = part_file(tmp_path)
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(nist.content) + 1))
    assert_holds(load(tmp_path), nist.splits)


def test_stalled_download_is_given_up(nist, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "STALLED_AFTER", 0.3)
    nist.behaviour = "stalls"
    began = time.monotonic()
    with pytest.raises(download.Unavailable, match="broke off after"):
        load(tmp_path)
    assert time.monotonic() - began < 3


def test_other_content_is_refused_and_not_kept(nist, tmp_path):
    nist.content = b"<html>Please log in</html>"
    with pytest.raises(download.Unavailable, match="is not what is known: its sha"):
        load(tmp_path)
    assert not part_file(tmp_path).exists()
    assert not download.cached_path(tmp_path / "data").exists()


def test_damaged_download_is_fetched_again(nist, tmp_path, capsys):
    cached = download.cached_path(tmp_path / "data")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(nist.content[:-1])
    assert_holds(load(tmp_path), nist.splits)
    assert f"warning: {cached} is damaged" in capsys.readouterr().err


def test_missing_page_is_named(nist, tmp_path):
    nist.behaviour = "missing"
    with pytest.raises(download.Unavailable, match="answered with status 404"):
        load(tmp_path)
    assert not (tmp_path / "data").exists()


def test_strange_proxy_settings_are_an_error_of_the_network(nist, monkeypatch):
    monkeypatch.delenv("no_proxy")
    for proxy in ("http://127.0.0.1:9", "http://[", "nonsense://x"):
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(download.Unavailable, match="cannot be reached"):
            download.check_reachable()


@contextlib.contextmanager
def swallowing_port(full):
    """A port that never answers; where `full`, it takes no connection either."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8 if full else 0):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


BY_NAME = """
import os, sys, time
os.environ["no_proxy"] = "127.0.0.1"
from emnist_jax import data
from emnist_jax.data import archive
from emnist_jax.cli.errors import UserError
archive.NIST_URL = f"http://127.0.0.1:{sys.argv[2]}/gzip.zip"
began = time.monotonic()
try:
    data.load("emnist/balanced", data_dir=sys.argv[1])
except UserError as error:
    print(time.monotonic() - began, error)
"""


@pytest.mark.parametrize("full", [False, True], ids=["silent", "unreachable"])
def test_gives_up_in_time_behind_a_firewall(tmp_path, full):
    with swallowing_port(full) as port:
        answer = subprocess.run(
            [sys.executable, "-c", BY_NAME, str(tmp_path / "data"), str(port)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    seconds, message = answer.stdout.split(maxsplit=1)
    assert float(seconds) < 5
    assert "did not answer within" in message or "cannot be reached" in message
    assert not (tmp_path / "data").exists()


def test_silence_is_named(monkeypatch):
    monkeypatch.setattr(download, "ANSWER_WITHIN", 0.2)
    with swallowing_port(full=False) as port:
        monkeypatch.setattr(archive, "NIST_URL", f"http://127.0.0.1:{port}/gzip.zip")
        with pytest.raises(download.Unavailable, match="did not answer within"):
            download.check_reachable()

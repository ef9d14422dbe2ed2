"""Node and Chromium for tests of the page; skipped where a machine lacks them."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from emnist_jax import explore

PAGE = pathlib.Path(explore.__file__).parent / "page"
WORKERS = pathlib.Path(__file__).parent / "workers"
REQUIRED = "EMNIST_JAX_REQUIRE_BROWSER"


def tool(*names: str) -> str:
    """Path of the first of some programs that is there."""
    for name in names:
        if path := shutil.which(name):
            return path
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{names[0]} is not installed and {REQUIRED}=1 asks for it")
    pytest.skip(f"{names[0]} is not installed")


def ask_node(worker: str, arguments: list, jobs: list[dict]) -> list:
    """Answers of a worker in JavaScript to some jobs."""
    command = [tool("node"), WORKERS / worker, *arguments]
    result = subprocess.run(
        command, input=json.dumps(jobs), capture_output=True, text=True, timeout=250
    )
    assert result.returncode == 0 and not result.stderr, result.stderr
    return json.loads(result.stdout)


class Browser:
    """Headless Chromium over its debugging pipe: JSON messages that end with a null.

    Attributes:
      problems: what it reported as exceptions and as errors or warnings so far.
    """

    def __init__(self, folder: pathlib.Path):
        """Starts it with its profile in `folder`."""
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # It reads file descriptor 3 and writes 4.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
        profile = f"--user-data-dir={folder / 'profile'}"
        chromium = tool("chromium", "chromium-browser", "google-chrome")
        arguments = (*options, profile, "--remote-debugging-pipe", "about:blank")
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", chromium, *arguments],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._count, self._session, self._rest, self.problems = 0, None, b"", []
        targets = self.call("Target.getTargets")["targetInfos"]
        (page,) = [one["targetId"] for one in targets if one["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **params) -> dict:
        """The result of a method of Chromium's DevTools protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, page: pathlib.Path) -> None:
        """Shows a page."""
        self.call("Page.navigate", url=page.as_uri())

    def evaluate(self, expression: str):
        """The value of an expression in JavaScript, or of the promise it gives."""
        options = {"awaitPromise": True, "returnByValue": True}
        result = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str, seconds: int = 120):
        """Waits until an expression is true, and returns it."""
        return self.evaluate(
            f"new Promise((resolve, reject) => {{ const end = Date.now() + "
            f"{1000 * seconds}; const look = () => {{ const found = {condition}; if "
            "(found) resolve(found); else if (Date.now() > end) reject('waited in "
            "vain'); else setTimeout(look, 20); }; look(); })"
        )

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"])
        elif method == "Log.entryAdded":
            self.problems.append(params["entry"])
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(params["args"])

    def choose(self, selector: str, path: pathlib.Path) -> None:
        """Chooses a file in a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)
        self.call("DOM.setFileInputFiles", files=[str(path)], **node)

    def drag(self, selector: str, *points: tuple[float, float]) -> None:
        """Drags the mouse over an element, between points in shares of its sides."""
        box = self.evaluate(
            f"(({{x, y, width, height}}) => [x, y, width, height])(document."
            f"querySelector('{selector}').getBoundingClientRect())"
        )
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, point in zip(kinds, [*points, points[-1]], strict=True):
            x, y = (box[axis] + point[axis] * box[axis + 2] for axis in (0, 1))
            options = {"button": "left", "buttons": 1, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **options)

"""WebKit, the engine of Safari, for tests of the page: WebKitGTK by its WebDriver."""

import json
import os
import pathlib
import subprocess
import time
import urllib.request

from page_tools import tool

BROWSER = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"  # of Debian's webkit2gtk-driver
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # how WebDriver names an element


class WebKit:
    """A window of WebKitGTK on a display of its own; one page at a time."""

    def __init__(self):
        """Starts display, driver and browser; skipped where one is missing."""
        driver, display = tool("WebKitWebDriver"), tool("Xvfb")
        browsers = [*pathlib.Path("/").glob(BROWSER[1:])]
        browser = browsers[0] if browsers else tool("MiniBrowser")
        self._processes = []
        reading, writing = os.pipe()
        self._start([display, "-displayfd", str(writing)], pass_fds=[writing])
        os.close(writing)
        with os.fdopen(reading) as numbers:
            shown = f":{numbers.readline().strip()}"
        # Port 0 would be printed nowhere: one of our process's own is as good as free.
        port = 20000 + os.getpid() % 20000
        self._address = f"http://127.0.0.1:{port}/session"
        environment = os.environ | {"DISPLAY": shown, "LIBGL_ALWAYS_SOFTWARE": "1"}
        self._start([driver, f"--port={port}"], env=environment)
        options = {"binary": str(browser), "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        try:
            started = self._call("", capabilities=wanted)
        except BaseException:
            self._end()
            raise
        self._address += f"/{started['sessionId']}"

    def _start(self, command: list[str], **options) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes.append(subprocess.Popen(command, **quiet, **options))

    def __enter__(self) -> "WebKit":
        return self

    def __exit__(self, *exception) -> None:
        request = urllib.request.Request(self._address, method="DELETE")
        try:
            urllib.request.urlopen(request, timeout=60).close()
        finally:
            self._end()

    def _end(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait()

    def _call(self, path: str, **given):
        request = urllib.request.Request(
            self._address + path,
            data=json.dumps(given).encode(),
            headers={"Content-Type": "application/json"},
        )
        end = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(request, timeout=200) as answer:
                    return json.load(answer)["value"]
            except urllib.error.HTTPError as error:
                raise AssertionError(error.read().decode()) from error
            except urllib.error.URLError:  # the driver is still starting
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def open(self, page: pathlib.Path) -> None:
        """Shows a page."""
        self._call("/url", url=page.as_uri())

    def evaluate(self, expression: str):
        """The value of an expression in JavaScript."""
        return self._call("/execute/sync", script=f"return ({expression})", args=[])

    def wait_for(self, condition: str, seconds: int = 120):
        """Waits until an expression is true, and returns it."""
        end = time.monotonic() + seconds
        while not (found := self.evaluate(condition)):
            assert time.monotonic() < end, f"waited in vain for {condition}"
            time.sleep(0.05)
        return found

    def choose(self, selector: str, path: pathlib.Path) -> None:
        """Chooses a file in a file input."""
        element = self._call("/element", using="css selector", value=selector)
        self._call(f"/element/{element[ELEMENT]}/value", text=str(path))

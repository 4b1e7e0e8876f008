"""A page in the system's Chromium, and all that it did: requests, messages, dialogs, errors."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REQUIRED = "RESNEST_D2_TEST_BROWSER"
"""Continuous integration sets this variable: there, no browser is a failure."""


@dataclass
class Visit:
    """A page and what happened on it.

    Attributes:
        page: Playwright's.
        requests: addresses of all requests but ``data:``.
        messages: of the console, errors of the page, and dialogs.
    """

    page: object
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[object]:
    """The browser. Without one the test is skipped, or fails where ``REQUIRED`` is set."""
    missing = pytest.fail if os.environ.get(REQUIRED) else pytest.skip
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        missing("there is no chromium on PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed")
    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser, file: str | os.PathLike, width: int) -> Iterator[Visit]:
    """Open a file in a window of that width, pixels, and wait until all its pictures are there."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    visited = Visit(page)

    def on_request(request):
        if not request.url.startswith("data:"):
            visited.requests.append(request.url)

    def on_dialog(dialog):
        visited.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("request", on_request)
    page.on("console", lambda message: visited.messages.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: visited.messages.append(f"error: {error}"))
    page.on("dialog", on_dialog)
    page.goto(Path(file).resolve().as_uri())
    page.evaluate("Promise.all([...document.images].map(i => i.decode().catch(() => {})))")
    yield visited
    context.close()

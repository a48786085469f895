"""A page in headless Chromium, watched: an error on its console, or a request to anything but a file, is an error."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

HOW = "install one (apt-get install chromium, or playwright install chromium)"


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; without one the tests are skipped, or fail where VICO_EVAL_NEEDS_BROWSER is 1."""
    from playwright.sync_api import Error, sync_playwright

    found = next(filter(None, map(shutil.which, NAMES)), None)
    # Chromium's own walls need rights that root's processes give up.
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=flags)
        except Error as error:
            if found or os.environ.get("VICO_EVAL_NEEDS_BROWSER") == "1":
                pytest.fail(f"No browser: {HOW}. {error}")
            pytest.skip(f"there is no browser; {HOW}")
        yield browser
        browser.close()


class Watched:
    """Opens pages of a site and gathers what must not happen."""

    def __init__(self, browser: Any, site: Path, **options: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options})
        self.problems: list[str] = []
        self.loaded: list[str] = []
        """Names of the files asked for, in order."""

        self._site = site
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("request", self._note)

    def open(self, **view: object) -> Any:
        """The page with a view, such as `outcome="lost"`, once its samples are there."""
        self.page.goto("about:blank")
        self.loaded.clear()
        self.page.goto(f"{(self._site / 'index.html').as_uri()}{'#' if view else ''}{urlencode(view)}")
        self.page.wait_for_selector("#samples-results > *")
        return self.page

    def close(self) -> None:
        """Ends it; fails if something happened that must not."""
        self.page.close()
        assert self.problems == [], self.problems

    def _note(self, request: Any) -> None:
        self.loaded.append(request.url.rsplit("/", 1)[-1])
        if not request.url.startswith(("file:", "about:")):
            self.problems.append(f"request: {request.url}")


def findings(page: Any) -> list[str]:
    """What axe-core finds, by rule and element, which may load nothing of its own."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]


def faint_words(page: Any, place: str) -> list[str]:
    """Text of a drawing with a contrast of less than 4.5 to what lies beneath it; axe-core leaves drawings out."""
    colours = page.eval_on_selector_all(
        f"{place} svg text",
        """texts => texts.map((text) => {
            const behind = getComputedStyle(text.closest("section")).backgroundColor;
            return [text.textContent, getComputedStyle(text).fill, behind];
        })""",
    )
    assert colours
    return [words for words, ink, paper in colours if contrast(ink, paper) < 4.5]


def contrast(one: str, other: str) -> float:
    """Of two colours such as `rgb(0, 114, 178)`, by WCAG 2.2."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

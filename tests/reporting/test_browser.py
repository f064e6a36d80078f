"""The report in headless Chromium, from its file: pictures, filters, keys, colour schemes, a phone, and no request."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from sage_trl.reporting.writing import ReportOptions, write_report
from sage_trl.storage import write_jsonl
from tests.reporting.made_runs import HOSTILE, evidence
from tests.reporting.many_groups import write_many_groups
from tests.review.browser import browser

pytestmark = pytest.mark.slow
WIDTHS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
SECONDS_TO_OPEN = 3.0


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("profile"), 1280, 900) as driver:
        yield driver


class Report:
    """What a reader sees and does."""

    def __init__(self, chrome: Chrome, path: Path) -> None:
        self.chrome = chrome
        self.path = path

    def open(self, width: str = "desktop", scheme: str = "light") -> None:
        size = dict(zip(("width", "height", "mobile"), WIDTHS[width], strict=True))
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": 1})
        # A page that glides to where a click wants it is clicked beside the mark.
        preferred = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.chrome.get(self.path.as_uri())
        self.wait("document.documentElement.dataset.ready === 'true'")

    def run(self, script: str, *arguments: object) -> Any:
        return self.chrome.execute_script(f"return {script}", *arguments)

    def wait(self, condition: str) -> None:
        WebDriverWait(self.chrome, 15, poll_frequency=0.05).until(lambda _: self.run(condition))

    def text(self, selector: str) -> str:
        return self.run("document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def choose(self, name: str, label: str) -> str:
        """Set a filter; returns what the position then says."""
        Select(self.chrome.find_element(By.ID, name)).select_by_visible_text(label)
        return self.text("#position")

    def press(self, *keys: str) -> None:
        ActionChains(self.chrome).send_keys(*keys).perform()

    def assert_silent(self) -> None:
        """No console error, and no request but for the file itself and what it holds."""
        assert [entry for entry in self.chrome.get_log("browser") if entry["level"] == "SEVERE"] == []
        events = [json.loads(entry["message"])["message"] for entry in self.chrome.get_log("performance")]
        asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
        # A new window's own page is made of chrome: addresses.
        assert {url for url in asked if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))} == {
            self.path.as_uri()
        }


PICTURES = "[...document.querySelectorAll('#case img, #list img')]"
SHOWN = f"{PICTURES}.length > 0 && {PICTURES}.every((image) => image.complete && image.naturalWidth > 0)"
# Charts and tables that take no room, and the page's own width against the window's.
FLAT = (
    "[...document.querySelectorAll('.chart svg, table')]"
    ".filter((one) => one.getBoundingClientRect().height < 40).length"
)
VALUES = "[...document.querySelectorAll('#stage .value')].map((one) => one.textContent)"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
COLOURS = (
    "[document.body, document.querySelector('.chart svg text')].map((one) => getComputedStyle(one))"
    ".map((style) => [style.backgroundColor, style.fill, style.color])"
)


def test_every_picture_shows_at_every_width_and_in_both_schemes(chrome, demo_report):
    report = Report(chrome, demo_report[0])
    colours = {}
    for width, scheme in product(WIDTHS, ("light", "dark")):
        report.open(width, scheme)
        report.wait(SHOWN)
        assert report.run(FLAT) == 0 and report.run(OVERFLOW) <= 0, (width, scheme)
        colours[scheme] = report.run(COLOURS)
    # Page and text of a chart have other colours in the dark.
    assert all(light != dark for light, dark in zip(colours["light"], colours["dark"], strict=True))
    report.assert_silent()


def test_filters_keys_overlay_and_strangers_text(chrome, demo_report):
    report = Report(chrome, demo_report[0])
    report.open()
    assert report.text("#position") == "1 of 5"

    # Each filter, and filters together; the expected numbers are those of `REPLIES`.
    assert report.choose("model", "alpha") == "1 of 5"
    assert report.choose("verdict", "right") == "1 of 3"
    assert report.choose("differs", "<b>beta</b>") == "1 of 2"
    assert report.choose("level", "identification") == "1 of 1"
    assert report.text("#case h3") == "Is the part scratched?"
    assert report.choose("category", "plate") == "1 of 1"
    chrome.find_element(By.CSS_SELECTOR, ".filters [type=reset]").click()
    report.wait("document.querySelector('#position').innerText.endsWith(' of 5')")
    assert report.choose("verdict", "unreadable") == "1 of 1"
    assert report.text("#case .reply p") == HOSTILE
    assert report.choose("verdict", "open question") == "0 of 0"
    assert report.text("#list") == "No question matches."
    assert report.choose("verdict", "any").endswith(" of 5")
    assert report.choose("input", "one-shot, blank image") == "1 of 1"
    assert report.choose("input", "one-shot") == "1 of 5"

    # Keys: on and back, patches and defects away and back, the attention of a fact.
    chrome.find_element(By.ID, "detail").click()
    report.press(Keys.ARROW_RIGHT)
    assert report.text("#position") == "2 of 5"
    report.press(Keys.ARROW_LEFT, "d")
    assert report.text("#position") == "1 of 5"
    assert report.run("['defect', 'patch'].map((kind) => document.querySelectorAll(`rect.${kind}`).length)") == [0, 2]
    assert report.run(VALUES) == ["0.13", "0.75"]
    report.press("d", "2")
    assert report.run(VALUES) == ["25%", "75%"]
    assert report.run("document.querySelectorAll('[data-fact]')[1].ariaPressed") == "true"
    # The rectangle lies where the patch is.
    middle = (
        "(() => { const patch = document.querySelectorAll('rect.patch')[1].getBoundingClientRect(); "
        "const stage = document.querySelector('#stage').getBoundingClientRect(); "
        "return [(patch.x - stage.x) / stage.width, patch.width / stage.width]; })()"
    )
    assert report.run(middle) == pytest.approx([0.5, 0.5], abs=0.02)
    report.press(Keys.ESCAPE, "p")
    assert report.run("document.querySelectorAll('rect.patch').length") == 0
    report.press("?")
    assert report.run("document.querySelector('#help').open")
    assert report.run("document.title") == "Report: SAGE report · small"
    assert report.run(
        "[document.querySelectorAll('#case script, #case b b, #case img[onerror]').length, window.owned]"
    ) == [0, None]
    report.assert_silent()


def test_without_a_reference_no_patch_is_said_to_be_selected(chrome, demo, tmp_path):
    run = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    patches = [{"box": [0.0, 0.0, 0.5, 0.5], "similarity": None}]
    row = evidence("alpha", "g0") | {"selected": False, "attended": 1000, "patches": patches}
    write_jsonl(run / "evidence.jsonl", [row | {"facts": [{"text": "It shines.", "attention": [0.25]}]}])
    write_report(ReportOptions(runs=[run], output=tmp_path / "report.html", quiet=True))
    report = Report(chrome, tmp_path / "report.html")
    report.open()
    said = report.text("#evidence")
    assert "no patch is selected: the facts attend to all 1,000; shown are the 1 with most attention" in said
    # No list of most distinct patches, and the attention of the fact on its patch.
    assert report.run("document.querySelector('#evidence .patches').hidden")
    report.press("1")
    assert report.run(VALUES) == ["25%"]


@pytest.mark.soak
def test_five_thousand_image_pairs_open_in_three_seconds(chrome, tmp_path):
    run = write_many_groups(tmp_path / "run", 5000)
    output = tmp_path / "report.html"
    write_report(ReportOptions(runs=[run], output=output, gallery=5000, quiet=True))
    report = Report(chrome, output)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        report.open()
        report.wait(SHOWN)
        seconds.append(time.perf_counter() - start)
    assert report.text("#position") == "1 of 5,000"
    start = time.perf_counter()
    report.choose("verdict", "wrong")
    filtered = time.perf_counter() - start
    opened = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"{output.stat().st_size / 1e6:.0f} MB; opened in {opened} s; filtered in {filtered:.2f} s")
    assert min(seconds) < SECONDS_TO_OPEN
    report.assert_silent()

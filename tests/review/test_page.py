"""The page in headless Chromium, against the real server: what reviewers do, and what a kill may not lose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.review.browser import browser
from tests.review.conftest import review

pytestmark = pytest.mark.slow


class Page:
    """What a reviewer sees and does."""

    def __init__(self, chrome: Chrome, dataset: Path) -> None:
        self.chrome = chrome
        self.log = dataset / "review.jsonl"

    def open(self, address: str) -> None:
        self.chrome.get(address)
        self.wait(lambda: len(self.answers()) == 4)

    def wait(self, condition: Callable[[], Any]) -> None:
        """Until the page is at rest and the condition holds."""
        rest = "document.querySelector('#main')?.ariaBusy === 'false'"
        WebDriverWait(self.chrome, 15, poll_frequency=0.05).until(lambda _: self.run(rest) and condition())

    def run(self, script: str, *arguments: object) -> Any:
        return self.chrome.execute_script(f"return {script}", *arguments)

    def answers(self) -> list[str]:
        return self.run("[...document.querySelectorAll('#answers li .words')].map((words) => words.textContent)")

    def text_of(self, selector: str) -> str:
        return self.run("document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def find(self, selector: str):
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def card(self, rank: int):
        return self.find(f"#answers li:nth-child({rank})")

    def press(self, *keys: str) -> None:
        ActionChains(self.chrome).send_keys(*keys).perform()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def at(self, index: int) -> bool:
        return self.run("location.hash") == f"#{index}"


@pytest.fixture
def page(ad_pl, tmp_path) -> Iterator[Page]:
    with browser(tmp_path / "profile", 1280, 800) as chrome:
        yield Page(chrome, ad_pl)


FIRST = ["Yes, scratch at the top left.", "Yes, a scratch.", "Yes, a stain.", "No, fine."]


# Of the first defect's box, and of the frame of the test image.
MIDDLES = (
    "['.box', '#test .stage'].flatMap((name) => { const area = document.querySelector(name).getBoundingClientRect();"
    " return [area.x + area.width / 2, area.y + area.height / 2]; })"
)


def drag(page: Page, source, distance: int) -> None:
    """In steps, as a hand does."""
    chain = ActionChains(page.chrome, duration=20).click_and_hold(source)
    for step in range(10):
        chain.move_by_offset(0, distance * (step + 1) // 10 - distance * step // 10)
    chain.release().perform()


def test_reorder_edit_accept_and_reload(page, serve, ad_pl, tmp_path):
    server = serve(ad_pl)
    page.open(server.address)
    assert page.answers() == FIRST and page.text_of("#question .words") == "Is the part scratched?"
    assert server.key not in page.chrome.current_url

    # Reorder: the best answer is dragged below the third.
    distance = page.card(3).rect["y"] - page.card(1).rect["y"]
    drag(page, page.find("#answers li:first-child .words"), round(distance))
    moved = [FIRST[1], FIRST[2], FIRST[0], FIRST[3]]
    page.wait(lambda: len(page.lines()) == 1)
    assert page.lines()[0]["order"] == [1, 2, 0, 3]
    page.wait(lambda: page.answers() == moved)

    # Edit the answer that is now second, and the question.
    page.card(2).find_element(By.CSS_SELECTOR, "button").click()
    area = page.find("textarea")
    area.clear()
    area.send_keys("Yes, a dent in the middle.", Keys.ENTER)
    page.wait(lambda: len(page.lines()) == 2)
    assert (page.lines()[1]["answer"], page.lines()[1]["text"]) == (2, "Yes, a dent in the middle.")
    page.wait(lambda: not page.run("document.querySelector('textarea')"))
    page.find("#question button").click()
    page.find("textarea").send_keys(" Look well.")
    page.find(".editor .good").click()
    page.wait(lambda: len(page.lines()) == 3)
    moved[1] = "Yes, a dent in the middle."

    # Accept, which goes on to the next open question.
    page.wait(lambda: page.text_of("#question .words") == "Is the part scratched? Look well.")
    page.find("#accept").click()
    page.wait(lambda: page.at(2))
    assert [line["action"] for line in page.lines()] == ["order", "edit", "edit", "accept"]
    assert {line["reviewer"] for line in page.lines()} == {"Ann"}
    page.wait(lambda: page.text_of("#progress-text") == "1 accepted, 0 rejected, 9 open")

    # Reload: the same question; and one back everything is as it was left.
    page.chrome.refresh()
    page.wait(lambda: page.at(2) and len(page.answers()) == 4)
    page.press(Keys.ARROW_LEFT)
    page.wait(lambda: page.at(1) and page.answers() == moved)
    assert page.text_of("#status") == "accepted by Ann, changed"

    # The whole of it applies.
    assert review("--dataset", ad_pl, "--apply", tmp_path / "new").returncode == 0
    first = json.loads((tmp_path / "new" / "ad_pl.jsonl").read_text().splitlines()[0])["questions"][0]
    assert first["answers"] == moved and first["question"] == "Is the part scratched? Look well."
    assert [entry for entry in page.chrome.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert_no_foreign_request(page, server.base)


def test_a_killed_server_loses_no_action(page, serve, ad_pl):
    server = serve(ad_pl)
    page.open(server.address)
    page.press("4")
    ActionChains(page.chrome).key_down(Keys.ALT).send_keys(Keys.ARROW_UP).key_up(Keys.ALT).perform()
    page.wait(lambda: len(page.lines()) == 1)
    server.kill()
    page.press("r")
    page.wait(lambda: "Not saved" in page.text_of("#alert"))
    assert page.text_of("#saved") == "not saved" and len(page.lines()) == 1
    page.press("a")  # nothing may overtake it
    page.wait(lambda: "not saved yet" in page.text_of("#alert"))
    # The next server gets it from the page.
    again = serve(ad_pl, server.port)
    page.open(again.address)
    page.wait(lambda: page.text_of("#progress-text") == "0 accepted, 1 rejected, 9 open")
    assert [line["action"] for line in page.lines()] == ["order", "reject"]
    assert page.run("localStorage.length") == 0
    page.chrome.get(f"{again.base}/#1")
    page.wait(lambda: page.at(1) and page.answers() == [FIRST[0], FIRST[1], FIRST[3], FIRST[2]])
    assert page.text_of("#status") == "rejected by Ann, changed"


def assert_no_foreign_request(page: Page, base: str) -> None:
    events = [json.loads(entry["message"])["message"] for entry in page.chrome.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    outside = [url for url in asked if url.startswith(("http", "ws")) and not url.startswith(base)]
    assert f"{base}/api/overview" in asked and not outside, outside


def test_an_unfinished_text_outlives_the_tab_and_the_server(page, serve, ad_pl):
    server = serve(ad_pl)
    page.open(server.address)
    page.press("n")
    page.wait(lambda: page.at(2))
    page.press("2", "e")
    page.wait(lambda: page.run("document.activeElement.tagName") == "TEXTAREA")
    page.press(" And")
    server.kill()
    again = serve(ad_pl, server.port)
    page.chrome.get(again.address)
    page.wait(lambda: page.run("document.querySelector('textarea')?.value") == "No, a scratch. And")
    assert page.at(2) and page.lines() == []
    page.press(" more.", Keys.ENTER)
    page.wait(lambda: page.answers()[1:2] == ["No, a scratch. And more."])
    assert [line["text"] for line in page.lines()] == ["No, a scratch. And more."]
    page.press("e", "!", Keys.ESCAPE)
    page.wait(lambda: len(page.answers()) == 4)
    assert len(page.lines()) == 1
    # What leaves an edit saves it.
    page.press("q", " Where?")
    page.find("#accept").click()
    page.wait(lambda: page.at(3))
    assert [line["action"] for line in page.lines()] == ["edit", "edit", "accept"]
    assert page.lines()[1]["text"].endswith("should? Where?")


def test_everything_works_from_the_keyboard(page, serve, ad_pl):
    page.open(serve(ad_pl).address)
    page.press("4")
    ActionChains(page.chrome).key_down(Keys.ALT).send_keys(Keys.ARROW_UP * 2).key_up(Keys.ALT).perform()
    page.wait(lambda: page.answers() == [FIRST[0], FIRST[3], FIRST[1], FIRST[2]])
    assert [line["order"] for line in page.lines()] == [[0, 1, 3, 2], [0, 3, 1, 2]]
    page.press("?")
    page.wait(lambda: page.run("document.querySelector('#help').open"))
    page.press("a", Keys.ESCAPE)  # no decision behind an open dialog
    page.wait(lambda: not page.run("document.querySelector('#help').open"))
    page.press("a")
    page.wait(lambda: page.at(2))
    # The second comes before anybody has seen the next question.
    pressed = "new KeyboardEvent('keydown', {key: 'r', bubbles: true})"
    page.run(f"[1, 2].forEach(() => document.body.dispatchEvent({pressed}))")
    page.wait(lambda: page.at(3))
    page.press(Keys.ARROW_LEFT)
    page.wait(lambda: page.at(2) and page.text_of("#status") == "rejected by Ann")
    page.press("u")
    page.wait(lambda: page.text_of("#status") == "")
    assert [line["action"] for line in page.lines()] == ["order", "order", "accept", "reject", "reopen"]
    assert page.text_of("#progress-text") == "1 accepted, 0 rejected, 9 open"


def test_defect_boxes_lie_where_the_rows_say_and_zoom_keeps_both_images_together(page, serve, ad_pl):
    page.open(serve(ad_pl).address)
    page.wait(lambda: page.run("[...document.images].every((image) => image.complete && image.naturalWidth)"))
    shares = page.run(
        "(() => { const image = document.querySelector('#test img').getBoundingClientRect();"
        " const box = document.querySelector('.box').getBoundingClientRect();"
        " return [(box.left - image.left) / image.width, (box.top - image.top) / image.height,"
        " (box.right - image.left) / image.width, (box.bottom - image.top) / image.height]; })()"
    )
    assert shares == pytest.approx([0.1, 0.1, 0.3, 0.3], abs=1e-3)
    assert page.text_of("#defects") == "scratch" and not page.run("document.querySelector('#reference .box')")
    page.press("b")
    assert not page.find(".box").is_displayed()
    page.press("b", "z")
    page.wait(lambda: page.run(MIDDLES)[:2] == pytest.approx(page.run(MIDDLES)[2:], abs=1))
    layers = page.run("[...document.querySelectorAll('.layer')].map((layer) => getComputedStyle(layer).transform)")
    assert layers[0] == layers[1] != "none"
    page.chrome.get(page.chrome.current_url.partition("#")[0] + "#7")
    page.wait(lambda: page.find("#reference .none").is_displayed())


def test_two_windows_do_not_overwrite_each_other(page, serve, ad_pl):
    server = serve(ad_pl)
    page.open(server.address)
    page.chrome.switch_to.new_window("tab")
    page.open(server.address)
    page.press("r")
    page.wait(lambda: page.at(2))
    page.chrome.switch_to.window(page.chrome.window_handles[0])
    page.press("a")
    page.wait(lambda: "another window" in page.text_of("#alert"))
    page.wait(lambda: page.text_of("#status") == "rejected by Ann")
    assert [line["action"] for line in page.lines()] == ["reject"]


def test_a_phone_drags_by_touch_and_nothing_is_cut_off(serve, ad_pl, tmp_path):
    with browser(tmp_path / "profile", 390, 844, is_phone=True) as chrome:
        page = Page(chrome, ad_pl)
        page.open(serve(ad_pl).address)
        assert page.run("document.documentElement.scrollWidth") <= 390
        page.run("document.querySelector('#answers').scrollIntoView({block: 'center'})")
        finger = PointerInput(POINTER_TOUCH, "finger")
        touch = ActionBuilder(chrome, mouse=finger, duration=20)
        touch.pointer_action.move_to(page.find("#answers li:nth-child(2) .handle")).pointer_down()
        for _ in range(10):
            touch.pointer_action.move_by(0, -10)
        touch.pointer_action.pointer_up()
        touch.perform()
        page.wait(lambda: page.answers() == [FIRST[1], FIRST[0], FIRST[2], FIRST[3]])
        assert page.lines()[0]["order"] == [1, 0, 2, 3]

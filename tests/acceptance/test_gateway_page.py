"""The gateway's page as a person sees it, in a real browser. ``SCREENSHOTS=docs/images`` keeps the pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.browser import Browser, find_chromium
from tests.gateway import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartWorker

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here: apt install chromium"),
    pytest.mark.skipif(bool(os.environ.get("CI")), reason="no browser in CI"),
]


@pytest.fixture
def page(worker: StartWorker, tmp_path: Path) -> Iterator[tuple[Browser, GatewayProcess]]:
    """The page in a browser, with a worker behind it that has a slow fake model and two slots."""
    worker("-c", "2", env={"CELERY_MLX_MODELS": "fake:30", "CELERY_MLX_HEARTBEAT_S": "0.3"})
    assert CHROMIUM is not None
    with GatewayProcess(tmp_path / "log") as gateway, Browser(CHROMIUM) as browser:
        browser.open(gateway.root)
        browser.wait("at('model').options.length > 1 && at('workers').rows.length > 1")
        yield browser, gateway


def keep(browser: Browser, name: str) -> None:
    """Keep a picture where the person who runs the tests wants it."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")


def say(browser: Browser, text: str) -> None:
    """Type a message and send it."""
    browser.evaluate(f"at('question').value = {text!r}; at('form').requestSubmit()")


def test_a_conversation(page: tuple[Browser, GatewayProcess]) -> None:
    """A question is answered as a stream, thoughts apart; who waits sees the place; Escape frees it; the fleet is shown.

    On a phone nothing is wider than the screen, and the message box stays in sight under a conversation that is longer than it.
    """
    browser, gateway = page
    assert browser.evaluate("at('model').value") == "fake:30"
    keep(browser, "gateway-empty")
    browser.evaluate("at('tokens').value = 60")
    say(browser, "!think@12 What is a queue?")
    browser.wait("document.querySelector('.turn details span')?.textContent.length > 20")
    keep(browser, "gateway-stream")
    browser.wait(
        "at('stop').hidden && document.querySelector('.turn:not(.mine) .note').textContent.includes('60 tokens')"
    )
    assert browser.evaluate("messages.length") == 2

    body = {"model": "fake:30", "prompt": "busy", "max_tokens": 5000, "stream": True}
    with gateway.http() as http, http.stream("POST", "/v1/completions", json={**body, "n": 2}):
        browser.wait("at('workers').innerText.includes('2 / 2')")
        say(browser, "And who waits?")
        browser.wait("[...document.querySelectorAll('.note')].at(-1).textContent.includes('next in line')")
        keep(browser, "gateway-waiting")
        browser.press("Escape")
        browser.wait("[...document.querySelectorAll('.note')].at(-1).textContent === 'stopped'")
    say(browser, "!nan@3 What is an error?")
    browser.wait("document.querySelector('.note.bad')?.textContent.includes('numbers')")
    keep(browser, "gateway-error")
    browser.resize(360, 640)
    browser.evaluate("at('talk').append(make('div', 'a long answer\\n'.repeat(80), 'turn'))")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate("at('form').getBoundingClientRect().bottom <= innerHeight")
    assert browser.evaluate("at('talk').scrollHeight > at('talk').clientHeight")
    keep(browser, "gateway-phone")
    assert browser.evaluate(
        "performance.getEntriesByType('resource').every((each) => each.name.startsWith(location.origin))"
    )


def test_it_goes_on_with_another_gateway(page: tuple[Browser, GatewayProcess], tmp_path: Path) -> None:
    """A gateway that is killed while it answers, and started again, is a pause: the whole answer is there."""
    browser, gateway = page
    browser.evaluate("at('tokens').value = 150")
    say(browser, "What is a gateway?")
    browser.wait("document.querySelector('.turn:not(.mine) > span').textContent.length > 30")
    gateway.kill()
    with GatewayProcess(tmp_path / "second", port=int(gateway.root.rpartition(":")[2])):
        browser.wait(
            "document.querySelector('.turn:not(.mine) .note').textContent.includes('150 tokens')", timeout_s=60
        )

"""What is typed into the page comes to the network to the last letter, however soon and fast one types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.pages import served
from tests.support.waiting import until

FIELD = "input[aria-label^='Rate of government-military/1']"
TYPED = "3300-4700 and some more"
# Nothing that the server sends comes in before somebody lets it, as on a slow line or a busy machine.
HELD = """const Real = WebSocket, waiting = [];
    let held = true;
    window.WebSocket = class extends Real {
        set onmessage(handler) { super.onmessage = e => held ? waiting.push(() => handler(e)) : handler(e); }
    };
    window.letCome = () => { held = false; waiting.splice(0).forEach(step => step()); };"""


@pytest.fixture
def connecting(browser: Chrome) -> Iterator[Chrome]:
    """A page that is drawn, but whose connection does not stand yet; `letCome()` has it stand."""
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HELD})
    try:
        with served("poliqi") as (address, _):
            browser.get(f"{address}/poliqi?look=link:government-military")
            until(lambda: browser.find_elements(By.CSS_SELECTOR, FIELD))
            yield browser
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def takes_focus(browser: Chrome, field: WebElement) -> bool:
    """Whether one could type there now."""
    return browser.execute_script("arguments[0].focus(); return document.activeElement === arguments[0]", field)


def test_nothing_can_be_typed_before_the_connection_stands_and_all_arrives_from_then_on(connecting):
    """Each letter would wait for the connection by itself, and the last but one could come last."""
    field = connecting.find_element(By.CSS_SELECTOR, FIELD)
    assert not takes_focus(connecting, field)
    connecting.execute_script("letCome()")

    until(lambda: takes_focus(connecting, field))
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(TYPED)
    connecting.execute_script("[...document.querySelectorAll('button')].find(e => e.innerText === 'Set rate').click()")
    said = "return document.querySelector('p.said').innerText"
    until(lambda: connecting.execute_script(said).endswith(f"got {TYPED!r}"),
          else_tell=lambda: connecting.execute_script(said))  # fmt: skip

"""The live view in a real browser, beside a real PoliQI: what it shows, what it does, and whom it refuses."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from testbed.machine.leftovers import Machine
from tests.e2e.conftest import SEED
from tests.e2e.test_poliqi import qc_output
from tests.support.leaks import shown
from tests.support.running import Running
from tests.support.waiting import until

LINK = "government-military"
OTHER_LINK = "university-government"
_KEY_ID = re.compile(r"[0-9a-f]{8}\b")
_PASSING = re.compile(rf"{_KEY_ID.pattern}|\d\d:\d\d:\d\d|story$")

# The names of all controls that can be seen, and of the one that has the focus, with whether that shows.
_NAME = """const name = e => e.getAttribute('aria-label') || e.innerText?.trim()
    || e.closest('label')?.querySelector('.q-field__label')?.innerText || e.outerHTML;"""
_CONTROLS = _NAME + """return [...document.querySelectorAll('button, input, a[href], [tabindex="0"]')]
    .filter(e => e.getClientRects().length && !e.disabled).map(name)"""
_FOCUSED = _NAME + """const e = document.activeElement;
    const parts = [e, e.closest('.q-field')?.querySelector('.q-field__control')].filter(p => p);
    const outlined = parts.some(p => getComputedStyle(p).outlineStyle !== 'none');
    const marked = [...e.querySelectorAll('.box, .paper')].some(p => getComputedStyle(p).stroke === 'rgb(211, 84, 0)');
    return [name(e), outlined || marked]"""


class Page:
    """The page in a browser, by the words that people see."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url

    def open(self, look: str = "") -> None:
        """Load it anew, with something selected, until one can write into it."""
        self.browser.get(f"{self.url}?look={look}")
        until(lambda: self.all("g.node") and not self.js("return document.body.inert"))

    def all(self, css: str) -> list[WebElement]:
        """Elements by selector."""
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        """The words in the first element of that selector, as they are now."""
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", css)

    def js(self, script: str, *arguments: Any) -> Any:
        """The result of a script."""
        return self.browser.execute_script(script, *arguments)

    def press(self, words: str) -> None:
        """Press the button of that name, once it is there and can be pressed."""
        find = _NAME + """return [...document.querySelectorAll('button')]
            .find(e => name(e) === arguments[0] && !e.disabled)"""
        button = until(lambda: self.js(find, words), else_tell=lambda: f"no button {words!r}")
        self.js("arguments[0].click()", button)

    def write(self, label: str, text: str) -> None:
        """Write into the field of that label, as at a keyboard."""
        field = self.browser.find_element(By.CSS_SELECTOR, f"input[aria-label='{label}']")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)
        assert self.value(label) == text

    def value(self, label: str) -> str | None:
        """What stands in the field of that label."""
        return self.browser.find_element(By.CSS_SELECTOR, f"input[aria-label='{label}']").get_attribute("value")

    def choose(self, label: str, start: str) -> None:
        """Choose what begins with `start` from the list of that label, by keyboard."""
        field = self.browser.find_element(By.CSS_SELECTOR, f"input[aria-label='{label}']")
        active = "return document.getElementById(arguments[0].getAttribute('aria-activedescendant'))?.innerText ?? ''"
        for _ in range(60):
            field.send_keys(Keys.ARROW_DOWN)
            if self.js(active, field).strip().startswith(start):
                field.send_keys(Keys.ENTER)
                return
        raise AssertionError(f"{start!r} is not to be had from {label!r}")

    def shows(self, css: str, pattern: str) -> None:
        """Return once the text of an element holds `pattern`."""
        until(
            lambda: re.search(pattern, self.text(css)),
            else_tell=lambda: f"{pattern!r} did not appear in {css}: {self.text(css)!r}; {self.text('.said')!r}",
        )

    def row(self, start: str) -> list[str]:
        """The cells of the table row whose first cell is `start`; [] if there is none."""
        script = """const row = [...document.querySelectorAll('tr')].find(r => r.cells[0].textContent === arguments[0]);
            return row ? [...row.cells].map(c => c.textContent) : []"""
        return self.js(script, start)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A PoliQI of its own, because its QCs and fibres are not left alone; with a page, as it has a command line."""
    options = ("--sessions", 4, "--seed", SEED, "--qc-rate", "330-470")
    running = Running(tmp_path_factory.mktemp("e2e") / "watched", *options)
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def url(watched: Running) -> str:
    """Where the run says that its page is."""
    found = re.search(r"live view at (http://127\.0\.0\.1:\d+/)", watched.text)
    assert found, watched.text
    return found[1]


@pytest.fixture
def page(browser: Chrome, url: str) -> Page:
    """The page, freshly loaded."""
    opened = Page(browser, url)
    opened.open()
    return opened


def test_all_nodes_and_links_are_drawn(page):
    """The map of PoliQI has five datacenters with their names, and five fibres that are up."""
    titles = {e.text for e in page.all("g.node .title")}

    assert titles == {"Government", "Military", "Telecom", "Finance", "University"}
    assert until(lambda: len(page.all("#map g.link.up")) == 5)
    assert len(page.all("#map g.link")) == 5


def test_session_opened_by_its_button_appears_gets_keys_and_is_closed(page):
    """Master and slave are chosen from lists; then keys are counted in the session's row, which ends with it."""
    pair = "student-records → operations-centre"
    assert not page.row(pair)
    page.choose("Master application", "student-records")
    page.choose("Slave application", "operations-centre")
    page.press("Open session")
    page.shows(".said", f"open: {pair}")

    until(lambda: page.row(pair) and int(page.row(pair)[5]) > 0, else_tell=lambda: page.row(pair))

    page.shows(".details h2", f"Session {pair}")
    page.press("Close session")
    page.shows(".said", "is closed")
    assert until(lambda: not page.row(pair))


def test_cut_link_is_drawn_as_cut_and_healed_again(page):
    """By line and by word, on the map, and no other link with it."""
    page.open(f"link:{LINK}")
    page.press("Cut link")

    page.shows(f"#map g.link.down[aria-label^='link {LINK}:']", "✕ CUT")
    assert len(page.all("#map g.link.down")) == 1

    page.press("Heal link")
    until(lambda: not page.all("#map g.link.down"), else_tell=lambda: page.text(".said"))


def test_map_goes_back_to_what_happened_and_on_to_now(page, watched):
    """A fibre that was cut and is healed again is cut once more on the map of that moment."""
    words = "✕ broken: cut government military"
    newest = "return [...document.querySelectorAll('.timeline tr')].find(r => r.textContent.includes(arguments[0]))"
    cut_before = page.js(f"{newest}?.textContent", words)
    watched.cli("qkd fault cut government military")
    page.shows("#map g.link.down", "✕ CUT")
    # So that a picture of the cut was taken after the event was written, too: of this one, not of one before.
    until(lambda: page.js(f"{newest}?.textContent", words) not in (None, cut_before))
    watched.cli("qkd fault heal cut government military")
    until(lambda: not page.all("#map g.link.down"))
    time = page.js(f"{newest}?.querySelector('button')", words)
    page.js("arguments[0].click()", time)

    page.shows(".moment-words", r"The map shows \d\d:\d\d:\d\d, \d+ s ago")
    page.shows(f"#map g.link.down[aria-label^='link {LINK}:']", "✕ CUT")

    page.press("Back to now")
    page.shows(".moment-words", "The map shows what is now")

    page.js("const e = document.querySelector('input.moment'); e.value = -3; e.dispatchEvent(new Event('input'))")
    page.shows(".moment-words", r"The map shows .*, [3-9] s ago")
    page.press("Back to now")
    until(lambda: not page.all("#map g.link.down"))


def test_changed_delay_is_drawn_and_said(page):
    """A fibre that is not as planned looks otherwise, and tells its delay."""
    page.open(f"link:{LINK}")
    page.write("Delay in ms, one way", "20")
    page.press("Set delay, jitter, loss")

    page.shows(f"#map g.link.changed[aria-label^='link {LINK}:']", "20 ms")

    page.press("As planned")
    until(lambda: not page.all("#map g.link.changed"), else_tell=lambda: page.text(".said"))


def test_changed_rate_shows_in_the_curve(page):
    """The newest slot of a QC's curve lies high above the ones before it."""
    page.open(f"link:{LINK}")
    page.write(f"Rate of {LINK}/1, LOW-HIGH in bytes a second", "900-901")
    page.press("Set rate")
    page.shows(".said", "makes 900-901 bytes")

    until(lambda: page.row(f"{LINK}/1")[3].startswith("90"), else_tell=lambda: page.row(f"{LINK}/1"))
    # The first curve of the first row: one scale, so that the heights of all points compare; upwards is less.
    points = page.all(".qcs polyline")[0].get_attribute("points").split()
    heights = [float(point.partition(",")[2]) for point in points]
    assert heights[-1] < min(heights[:4]) - 5


def test_settings_are_set_from_the_page_and_follow_the_command_line(page, watched):
    """Both go through the same desk, and the page shows what the other one did."""
    page.press("otp")
    page.shows(".said", "mode is otp now")

    watched.cli("qkd set mode basic")
    page.shows(".settings [aria-pressed=true]", "basic")


def test_wrong_value_is_answered_in_one_line(page):
    """It names what was expected, and changes nothing."""
    page.open(f"link:{LINK}")
    page.write(f"Rate of {LINK}/1, LOW-HIGH in bytes a second", "47")
    page.press("Set rate")

    page.shows(".said", "expected LOW-HIGH in bytes a slot, such as 33-47, got '47'")


def test_what_others_set_is_not_written_over_what_one_writes(page, watched):
    """It stands in the field when one has left it."""
    page.write("TTL in slots", "17")
    watched.cli("qkd set ttl_slots 20")
    watched.cli("qkd set mode otp")
    page.shows(".settings [aria-pressed=true]", "otp")  # so the page knows of both
    assert page.value("TTL in slots") == "17"

    page.js("document.activeElement.blur()")
    until(lambda: page.value("TTL in slots") == "20")
    watched.cli("qkd set ttl_slots 15")
    watched.cli("qkd set mode basic")


def test_refusal_is_told_in_plain_words(page, watched):
    """A session that was not opened is listed with who, why, and what helps."""
    for link in (LINK, OTHER_LINK):
        watched.cli(f"qkd set generation {link}/1 off")
    page.shows(f"#map g.link.no-key[aria-label^='link {OTHER_LINK}:']", "no new key")

    watched.cli("qkd open town-hall library")
    page.shows("#map g.node.alert[aria-label^='node Government']", "✕ session refused")
    page.shows(".timeline table", "● town-hall → library refused: there is no path")
    page.shows(".trouble", "town-hall → libraryNo chain of QCs that generate leads from one to the other.Heal a link")

    for link in (LINK, OTHER_LINK):
        watched.cli(f"qkd set generation {link}/1 on")
    assert until(lambda: not page.all("#map g.link.no-key"))


def test_key_tells_its_story_and_who_learned_it(page):
    """A press on a key's ID shows the sequence diagram, and which nodes have known the key."""
    def told() -> bool:
        """Of the newest key it is not, as long as its slave has not got it."""
        page.all(".keys button.link")[0].send_keys(Keys.ENTER)
        page.shows(".story h2", "Story: .+")
        return bool(re.search("(government|military|telecom|finance|university): the key", page.text(".story li")))

    assert until(lambda: page.all(".keys button.link"))
    assert until(told)
    picture = page.browser.find_element(By.CSS_SELECTOR, ".story img")
    assert until(lambda: page.js("return arguments[0].naturalHeight", picture) > 100)


def test_keyboard_reaches_every_control(page):
    """Tab alone visits all that can be pressed, chosen or written into, and what has the focus is marked."""
    page.open(f"link:{LINK}")
    page.shows(".details", "Set rate")
    # The latest keys, whose IDs are buttons, and what happened come and go meanwhile.
    wanted, seen, unmarked = {n for n in page.js(_CONTROLS) if not _PASSING.match(n)}, set(), []
    assert {"Cut link", "Open session", "Master application", "qkp"} <= wanted
    for _ in range(3 * len(wanted)):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        name, marked = page.js(_FOCUSED)
        seen.add(name)
        unmarked += [] if marked or name not in wanted else [name]
        if seen >= wanted and any(map(_KEY_ID.match, seen)):
            break

    assert wanted - seen == set()
    assert any(map(_KEY_ID.match, seen))
    assert unmarked == []


def test_node_is_selected_on_the_map_by_keyboard(page):
    """Enter does what a click does."""
    node = page.browser.find_element(By.CSS_SELECTOR, "g.node[aria-label^='node Telecom']")
    page.js("arguments[0].focus()", node)
    node.send_keys(Keys.ENTER)

    page.shows(".details h2", "Node Telecom")
    page.shows(".details dl", "controller, shared database")


def test_link_is_selected_from_the_list(page):
    """For who would rather read than look at a map."""
    page.choose("Look at", "link telecom-finance")

    page.shows(".details h2", "Link telecom-finance")
    assert until(lambda: "look=link%3Atelecom-finance" in page.browser.current_url)


def test_browser_finds_no_fault_asks_nobody_else_and_gets_no_key_byte(page, watched):
    """Of all that the tests above had it do: no error, no address but the page's, nothing that a QC made."""
    events = [json.loads(e["message"])["message"] for e in page.browser.get_log("performance")]
    asked = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = {a["request"]["url"] for a in asked if a.get("documentURL", "").startswith("http")}
    frames = [e["params"]["response"] for e in events if e["method"] == "Network.webSocketFrameReceived"]
    received = [frame["payloadData"] for frame in frames]
    seen = "".join([*received, page.browser.page_source]).encode()

    assert [e for e in page.browser.get_log("browser") if e["level"] == "SEVERE"] == []
    assert len(urls) > 10
    assert [u for u in urls if not u.startswith((page.url, "data:"))] == []
    assert len(received) > 20
    assert b"makes" in seen
    assert shown(seen, qc_output(watched, without=(f"{LINK}/1", f"{OTHER_LINK}/1"))) == []


def test_page_is_on_loopback_only(watched, url):
    """Nothing else of the run can be reached from the machine, and the page from nowhere else."""
    port = int(url.rstrip("/").rpartition(":")[2])

    assert Machine.listening(watched.directory) == [("127.0.0.1", port)]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("", {"Host": "evil.example"}),
        ("", {"Host": "127.0.0.1"}),
        ("", {"Origin": "http://evil.example"}),
        ("", {"Origin": "null"}),
        ("_nicegui_ws/socket.io/?EIO=4&transport=polling", {"Origin": "http://127.0.0.1:1"}),
    ],
)
def test_foreign_host_or_origin_is_refused(url, path, headers):
    """Another site's page in the same browser cannot drive the network, by whatever name it calls it."""
    assert urllib3.request("GET", url + path, headers=headers, timeout=20).status == 403


def test_foreign_web_socket_is_refused(url):
    """The connection by which the page acts asks for an Origin, too."""
    port = int(url.rstrip("/").rpartition(":")[2])
    lines = (
        "GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1", f"Host: 127.0.0.1:{port}",
        "Origin: http://evil.example", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = connection.recv(100)

    assert answer.startswith(b"HTTP/1.1 403 ")

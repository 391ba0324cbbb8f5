"""The map as a browser draws it: on every network that ships and on a large one nothing covers anything."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import networkx as nx
import pytest
import yaml
from selenium.webdriver import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from tests.support.browser import screen
from tests.support.maps import Rect, crowded
from tests.support.pages import TOPOLOGIES, served
from tests.support.waiting import until

SHIPPED = sorted(path.stem for path in TOPOLOGIES.glob("*.yaml"))
LARGE, CROWDED = "forty", "crowded"
SIZES = [(1920, 1080), (1366, 768), (1024, 768)]
# tests/unit/testbed/dashboard/test_layout.py lays them all out.
FEW = [("poliqi", size) for size in SIZES] + [(CROWDED, SIZES[-1])]
# Of all boxes and of the labels that are to be seen: what they are of, where they are, where their texts are. Of
# fibres: from where to where they lead, and how broad half of one is.
DRAWN = """const rect = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
    const seen = [...document.querySelectorAll('#map .node .box, #map .label .paper')]
        .filter(e => getComputedStyle(e).visibility !== 'hidden');
    const told = e => [e.closest('[aria-label]').getAttribute('aria-label'), rect(e),
        [...e.parentNode.querySelectorAll('text')].map(rect)];
    const matrix = document.getElementById('map').getScreenCTM();
    const point = (line, n) => { const p = new DOMPoint(line[`x${n}`].baseVal.value, line[`y${n}`].baseVal.value)
        .matrixTransform(matrix); return [p.x, p.y]; };
    const fibres = [...document.querySelectorAll('#map .link .body')].map(body => [
        body.closest('[aria-label]').getAttribute('aria-label'), point(body, 1), point(body, 2),
        parseFloat(getComputedStyle(body).strokeWidth) * matrix.a / 2]);
    const wide = [document.documentElement, ...document.querySelectorAll('.panel')]
        .filter(e => e.scrollWidth > e.clientWidth + 1);
    return {map: rect(document.getElementById('map')), nodes: document.querySelectorAll('g.node').length,
        boxes: seen.map(told), fibres, wide: wide.map(e => e.className || 'page')}"""


def described(name: str, nodes: Sequence[Any], pairs: Iterable[Sequence[str]], title: str) -> dict[str, Any]:
    """As a topology file has it; titles begin with that one."""
    first, second = nodes[0][0], nodes[1][0]
    return {
        "name": name,
        "nodes": [{"name": n, "title": f"{title}{i}", "position": list(at)} for i, (n, at) in enumerate(nodes)],
        "links": [{"a": a, "b": b, "length_km": 10} for a, b in pairs],
        "saes": [{"name": "one", "node": first}, {"name": "other", "node": second}],
    }


def large(number: int) -> dict[str, Any]:
    """A network of so many datacenters, each joined to its two nearest ones, and all of them to one another."""
    chance = random.Random(number)
    at = {f"n{i}": (round(chance.random(), 3), round(chance.random(), 3)) for i in range(number)}
    by_length = sorted(itertools.combinations(at, 2), key=lambda pair: math.dist(*(at[name] for name in pair)))
    tree: nx.Graph[str] = nx.Graph()
    for pair in by_length:  # the shortest fibres that join all, and whatever is as near as that
        if not all(tree.has_node(n) and tree.degree(n) > 1 for n in pair) or not nx.has_path(tree, *pair):
            tree.add_edge(*pair)
    return described(LARGE, tuple(at.items()), tree.edges, "Datacenter n")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the pages of all these networks are."""
    folder = tmp_path_factory.mktemp("topology")
    nodes, fibres, _ = crowded(40)
    files = []
    for document in (large(40), described(CROWDED, nodes, (ends for _, *ends in fibres), "")):
        files.append(folder / f"{document['name']}.yaml")
        files[-1].write_text(yaml.safe_dump(document))
    with served(*SHIPPED, *map(str, files)) as (found, _):
        yield found


def opened(browser: WebDriver, url: str) -> dict[str, Any]:
    """What is drawn of a page that was loaded, and whose map is in place."""
    browser.get(url)
    until(lambda: browser.execute_script("return !document.body.inert"))
    return browser.execute_script(DRAWN)


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether two rectangles do, by more than a pixel's edge."""
    return one[0] + 1 < other[2] and other[0] + 1 < one[2] and one[1] + 1 < other[3] and other[1] + 1 < one[3]


def lies_on(box: list[float], fibre: list[Any]) -> bool:
    """Whether that does, unless the fibre ends there."""
    left, top, right, bottom = box
    _, *ends, half = fibre
    if any(left <= x <= right and top <= y <= bottom for x, y in ends):
        return False
    rect = Rect((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2)
    return rect.is_crossed(*map(tuple, ends), half)


def assert_nothing_covers_anything(drawn: dict[str, Any]) -> None:
    """No box and no label another one, or a fibre that does not end there."""
    both = itertools.combinations(drawn["boxes"], 2)
    assert [(a, b) for (a, one, _), (b, other, _) in both if overlap(one, other)] == []
    both = itertools.product(drawn["boxes"], drawn["fibres"])
    assert [(box[0], fibre[0]) for box, fibre in both if lies_on(box[1], fibre)] == []


@pytest.mark.parametrize(
    ("name", "size"),
    [
        case if case in FEW else pytest.param(*case, marks=pytest.mark.slow)
        for case in itertools.product((*SHIPPED, LARGE, CROWDED), SIZES)
    ],
)
def test_no_box_and_no_label_covers_another_one_or_leaves_the_map_or_is_too_small_for_its_words(
    address, browser, name, size
):  # fmt: skip
    """On screens of three sizes, which show all of the page's width."""
    browser.set_window_size(*size)
    drawn = opened(browser, f"{address}/{name}")

    assert drawn["wide"] == []
    left, top, right, bottom = drawn["map"]
    for what, (x1, y1, x2, y2), texts in drawn["boxes"]:
        assert left <= x1 < x2 <= right, what
        assert top <= y1 < y2 <= bottom, what
        assert all(x1 <= text[0] and text[2] <= x2 for text in texts), what
    assert_nothing_covers_anything(drawn)


def test_map_is_zoomed_and_moved_by_keyboard_and_by_buttons(address, browser):
    """What is shown is a part of the map; `0` shows all of it again."""
    browser.set_window_size(1366, 768)
    opened(browser, f"{address}/poliqi")

    def view() -> list[float]:
        return browser.execute_script("return qkd.view()")

    def key(name: str) -> None:
        browser.execute_script(
            "const e = document.querySelector('[data-do=zoom-in]'); e.focus();"
            "e.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", name,
        )  # fmt: skip

    assert view() == [0, 0, 1200, 660]
    browser.execute_script("document.querySelector('[data-do=zoom-in]').click()")
    assert view() == pytest.approx([200, 110, 800, 440])
    key("ArrowLeft")
    assert view() == pytest.approx([40, 110, 800, 440])
    key("ArrowLeft")
    assert view()[0] == 0
    key("0")
    assert view() == [0, 0, 1200, 660]


def saved_by(browser: WebDriver, what: str) -> str:
    """What the browser would write into a file."""
    return browser.execute_async_script("""const [what, done] = arguments, make = URL.createObjectURL;
        URL.createObjectURL = blob => { blob.text().then(done); return make.call(URL, blob); };
        document.querySelector(`[data-do=${what}]`).click();""", what)  # fmt: skip


def test_map_is_saved_as_a_picture_that_needs_no_style_sheet(address, browser):
    """With its colours, its letters and all of the map, whatever part is shown."""
    opened(browser, f"{address}/poliqi")
    browser.execute_script("document.querySelector('[data-do=zoom-in]').click()")
    saved = saved_by(browser, "save-map")

    assert saved.startswith("<svg")
    assert 'viewBox="0 0 1200 660"' in saved
    assert "Government" in saved
    assert "stroke-width" in saved
    assert "class=" not in saved


def test_curves_are_saved_as_such_a_picture_too(address, browser):
    """With their lines, and the names of what is drawn."""
    browser.get(f"{address}/poliqi")
    until(lambda: browser.execute_script("return document.querySelector('.chart.curves svg')?.querySelector('path')"))
    saved = saved_by(browser, "save-curves")

    assert saved.startswith("<svg")
    assert "<path" in saved
    assert all(f">{name}<" in saved for name in ("made", "used", "expired", "bytes in stock"))
    assert "class=" not in saved


def letters(browser: WebDriver) -> float:
    """How high the smallest ones of datacenters are, in pixels of the page."""
    return browser.execute_script("""return Math.min(...[...document.querySelectorAll('#map .node text')]
        .map(e => e.getBoundingClientRect().height))""")  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_letters_of_the_map_grow_as_others_do_when_the_page_is_enlarged(address, browser, size):
    """To twice its size. A part of the map is shown then, not an empty one; nothing covers anything there either."""
    found = {}
    for times in (1, 2):
        with screen(browser, size, enlarged=times):
            drawn = opened(browser, f"{address}/poliqi")
            found[times] = times * letters(browser)
            left, top, right, bottom = drawn["map"]
            boxes = [box for _, box, _ in drawn["boxes"]]
            assert any(left <= x1 and x2 <= right and top <= y1 and y2 <= bottom for x1, y1, x2, y2 in boxes)
            assert_nothing_covers_anything(drawn)

    assert found[2] >= 1.8 * found[1]


def test_head_of_an_enlarged_page_leaves_room_for_the_map_and_goes_away_with_the_rest(address, browser):
    """What was said last stays in sight."""
    rect = "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return [r.top, r.bottom]"
    with screen(browser, SIZES[1], enlarged=2):
        opened(browser, f"{address}/poliqi")
        top, bottom = browser.execute_script(rect, ".top")
        assert bottom - top < 0.35 * 384
        kill = "[...document.querySelectorAll('button')].find(e => e.innerText.trim() === 'Kill the controller')"
        browser.execute_script(f"{kill}.click()")
        until(lambda: browser.execute_script("return document.querySelector('.said').innerText.startsWith('✕ no')"))
        browser.execute_script("scrollTo(0, 1000)")
        until(lambda: browser.execute_script(rect, ".top")[1] < 0)
        top, bottom = browser.execute_script(rect, ".said")

    assert 0 <= top < bottom <= 384


def test_page_that_is_enlarged_while_it_is_open_and_made_smaller_again_shows_the_whole_map_again(address, browser):
    """And its letters grow meanwhile."""
    with screen(browser, SIZES[1]):
        opened(browser, f"{address}/poliqi")
        before = letters(browser)
    with screen(browser, SIZES[1], enlarged=2):
        until(lambda: 2 * letters(browser) >= 1.8 * before)
    with screen(browser, SIZES[1]):
        until(lambda: browser.execute_script("return qkd.view()") == [0, 0, 1200, 660])
        assert letters(browser) == pytest.approx(before)


def test_what_has_the_focus_is_shown_of_a_map_of_which_there_is_room_for_a_part(address, browser):
    """Tab leads over all links and datacenters, and takes the map along."""
    shown = """const mark = document.activeElement.querySelector('.box, .target');
        if (!mark) return null;
        const [e, m] = [mark, document.getElementById('map')].map(one => one.getBoundingClientRect());
        const [x, y] = [(e.left + e.right) / 2, (e.top + e.bottom) / 2];
        return [mark.parentNode.getAttribute('aria-label'), m.left < x && x < m.right && m.top < y && y < m.bottom]"""
    with screen(browser, SIZES[1], enlarged=2):
        opened(browser, f"{address}/poliqi")
        browser.execute_script("document.querySelector('[data-do=save-map]').focus()")
        found = []
        for _ in range(10):  # five links, five datacenters
            browser.switch_to.active_element.send_keys(Keys.TAB)
            found.append(browser.execute_script(shown))

    assert all(found)
    assert len({name for name, _ in found}) == 10
    assert [name for name, is_seen in found if not is_seen] == []


def test_presentation_shows_the_map_alone_and_dark_is_dark(address, browser):
    """Escape leads back."""
    opened(browser, f"{address}/poliqi")
    shown = """return [...document.querySelectorAll('.panel')].filter(e => e.getClientRects().length)
        .map(e => e.classList[1])"""

    browser.execute_script("document.querySelector('[data-do=present]').click()")
    assert browser.execute_script(shown) == ["map", "timeline"]
    browser.execute_script("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert len(browser.execute_script(shown)) > 5

    ground = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    before = browser.execute_script(ground)
    browser.execute_script("document.querySelector('[data-do=dark]').click()")
    assert sum(browser.execute_script(ground)) < 150 < sum(before)
    browser.execute_script("document.querySelector('[data-do=dark]').click()")
    assert browser.execute_script(ground) == before


def test_page_of_a_run_that_has_ended_says_so_and_answers_no_more(browser):
    """What it said last was of a network that is gone; what it shows is old, and since when."""
    said = "return [...document.querySelectorAll('p.said, p.lost')].map(e => e.innerText.trim())"
    with served("poliqi") as (address, process):
        opened(browser, f"{address}/poliqi")
        kill = "[...document.querySelectorAll('button')].find(e => e.innerText.trim() === 'Kill the controller')"
        browser.execute_script(f"{kill}.click()")
        until(lambda: browser.execute_script(said) == ["✕ no network runs that does break", ""])
        process.kill()

        until(lambda: browser.execute_script(said)[1].startswith("✕ The run has ended or does not answer."))
        assert browser.execute_script(said)[0] == ""


@pytest.mark.parametrize("size", SIZES)
def test_presentation_fits_on_the_screen_and_fills_it(address, browser, size):
    """Whatever the screen: nothing to scroll, and the map has most of it."""
    with screen(browser, size):
        opened(browser, f"{address}/poliqi")
        browser.execute_script("document.querySelector('[data-do=present]').click()")
        high, wide, map_high = until(lambda: browser.execute_script(
            "const e = document.documentElement;"
            "return [e.scrollHeight, e.scrollWidth, document.getElementById('map').getBoundingClientRect().height]"
        ))  # fmt: skip

    assert (wide, high) == size
    assert map_high > 0.75 * size[1]


def test_button_that_cannot_be_pressed_looks_like_no_other(address, browser):
    """It has no ground, so that nobody in the last row takes it for one that can."""
    browser.get(f"{address}/poliqi")
    look = """return ['Heal everything', 'Kill the controller'].map(words => [...document.querySelectorAll('button')]
        .find(e => e.innerText.trim() === words)).map(e => [e.disabled, getComputedStyle(e).backgroundColor,
            getComputedStyle(e).borderTopStyle, getComputedStyle(e).opacity])"""
    until(lambda: browser.execute_script(DRAWN)["nodes"])
    dead, alive = browser.execute_script(look)

    assert dead == [True, "rgba(0, 0, 0, 0)", "dashed", "1"]
    assert alive[0] is False
    assert alive[1] != dead[1]


@pytest.mark.parametrize(("wish", "moves"), [("no-preference", True), ("reduce", False)])
def test_nothing_moves_for_who_wants_less_motion(address, browser, wish, moves):
    """A key's way is shown at once in place of a key that travels it, and what flows on a fibre stands still."""
    media = {"features": [{"name": "prefers-reduced-motion", "value": wish}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        opened(browser, f"{address}/poliqi")
        browser.execute_script("qkd.travel([[[100, 100], [900, 500]]])")
        drawn = browser.execute_script(
            "return [...document.getElementById('effects').children].map(e => [e.tagName, e.getAnimations().length])"
        )
        flows = browser.execute_script(
            "return [...document.querySelectorAll('.link.makes .flow')].map(e => getComputedStyle(e).animationName)"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    assert drawn == ([["circle", 1]] if moves else [["polyline", 0]])
    assert flows
    assert all((name != "none") == moves for name in flows)

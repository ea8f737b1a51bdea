"""The report in Chromium: no error in its console, sorting, drawings, narrow and wide, light and
dark.

`python -m pytest -m exhaustive tests/report`; the browser is $GRADSURGERY_CHROMIUM or
/usr/bin/chromium (`apt-get install chromium`).
"""

import pytest

from gradsurgery.report import write_report
from tests.report.folders import little, whole
from tests.support.browser import Browser, chromium

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        chromium() is None,
        reason="no Chromium at $GRADSURGERY_CHROMIUM or /usr/bin/chromium",
    ),
]
COLUMN = """[...document.querySelector("table").tBodies].map(
    (part) => [...part.rows].map((row) => row.cells[%d].querySelector(".text").textContent))"""
CLICK = 'document.querySelector("thead").rows[0].cells[%d].querySelector("button").click()'
NOT_DRAWN = """[...document.querySelectorAll("img, svg")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width === 0 || box.height === 0 || (one.complete === false)
        || one.naturalWidth === 0; }).length"""
DRAWN = 'document.querySelectorAll("svg").length'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(whole(tmp_path_factory.mktemp("full")))[0]


@pytest.fixture
def quiet(browser):
    """The browser, whose console must have no error after the test, and no request but files."""
    browser.errors.clear()
    browser.requests.clear()
    yield browser
    assert browser.errors == []
    assert [address for address in browser.requests if not address.startswith("file:")] == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_everything_is_drawn(quiet, page, width, dark):
    quiet.open(page, width=width, dark=dark)
    assert quiet.evaluate("document.documentElement.scrollWidth") <= width
    assert quiet.evaluate("window.innerWidth") == width
    assert quiet.evaluate(DRAWN) >= 8
    assert quiet.evaluate(NOT_DRAWN) == 0
    paper = quiet.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_a_heading_sorts_its_column_and_baselines_stay_on_top(quiet, page):
    quiet.open(page)
    before = quiet.evaluate(COLUMN % 0)
    assert before[1] == ["gains", "unclear", "near", "loses"]
    quiet.evaluate(CLICK % 1)  # the difference, from the highest
    quiet.evaluate(CLICK % 1)  # and from the lowest
    assert quiet.evaluate(COLUMN % 0)[1] == ["loses", "near", "unclear", "gains"]
    quiet.evaluate(CLICK % 0)
    now = quiet.evaluate(COLUMN % 0)
    assert now[1] == sorted(before[1])
    assert now[0] == sorted(before[0])
    sorted_by = 'document.querySelector("[aria-sort]").getAttribute("aria-sort")'
    assert quiet.evaluate(sorted_by) == "ascending"


def test_a_name_in_the_legend_brings_out_its_line(quiet, page):
    quiet.open(page)
    quiet.evaluate('document.querySelector(".key[data-name=gains]").click()')
    assert quiet.evaluate(
        '[...document.querySelectorAll(".series.on")].map(x => x.dataset.name)'
    ) == ["gains"]
    quiet.evaluate('document.querySelector(".key[data-name=gains]").click()')
    assert quiet.evaluate('document.querySelectorAll(".picked, .series.on").length') == 0


def test_names_of_strategies_are_text(quiet, tmp_path):
    """An alert would stop the page, and the test with it."""
    for folder in little(tmp_path).values():
        quiet.open(write_report(folder)[0], width=400)
        assert quiet.evaluate("document.documentElement.scrollWidth") <= 400
        assert quiet.evaluate("document.scripts.length") == 1
        assert quiet.evaluate(NOT_DRAWN) == 0

"""The report: what it says of full, partial, failed and empty folders, as HTML and as Markdown."""

import re
from html.parser import HTMLParser

import pytest

import gradsurgery as gs
from gradsurgery.compare import conclude, read_results, verdict_sentences
from gradsurgery.report import as_html, as_markdown, page_of, write_report
from gradsurgery.report.drawing import Series, chart, strip, ticks
from tests.report.folders import FIXED, little, whole
from tests.support.rows import known, setup, write

pytestmark = pytest.mark.quick
VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Holds that tags are closed in order, and collects them with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = whole(tmp_path_factory.mktemp("full"))
    html, markdown = write_report(folder)
    return page_of(read_results(folder)), html.read_text(), markdown.read_text()


def row_of(table, strategy):
    (found,) = (row for row in table.rows if row.cells[0].text == strategy)
    headings = [cell.text for cell in table.headings]
    return dict(zip(headings, found.cells, strict=True)), found.grey


def test_the_page_needs_nothing_else(full):
    read = Reader(full[1])
    for tag, given in read.tags:
        address = given.get("src") or given.get("href") or "data:"
        assert address.startswith("data:"), (tag, given)
        assert not given.keys() & {"onclick", "onload"}
    assert not re.search(r"@import|url\(|fetch\(|https?://", full[1])
    assert "prefers-color-scheme: dark" in full[1]


def test_verdicts_come_first_and_agree_with_the_rows(full):
    page, html, markdown = full
    (task,) = page.tasks
    assert task.verdicts[0].startswith("Against sum: gains (+3.00 points")
    for text in (" ".join(Reader(html).texts), markdown):
        places = [text.index(word) for word in ("Against sum: ", "Limitations", "Make it again")]
        assert places == sorted(places)
        for sentence in task.verdicts:
            assert sentence in text
    word = {row.cells[0].text: row.cells[2].text for row in task.table.rows}
    assert word["gains"] == "better"
    assert word["loses"] == "worse"
    assert word["near"] == "equivalent"
    assert word["unclear"] == "undecided"


def test_baselines_are_on_top_and_strategies_by_their_gain(full):
    table = full[0].tasks[0].table
    labels = [row.cells[0].text for row in table.rows]
    assert labels[:2] == ["sum", "scaled-sum"]
    assert set(labels[2:6]) == {"weights 1 : 0.5", FIXED[1], "alone: left", "alone: right"}
    short = row_of(table, "weights 1 : 0.5")[0]["strategy"]
    assert short.hint == FIXED[0]
    assert any(given.get("title") == short.hint for _, given in Reader(full[1]).tags)
    assert labels[6:] == ["gains", "unclear", "near", "loses"]
    assert [row.grey for row in table.rows] == 6 * [True] + 4 * [False]


def test_a_row_has_rate_cost_gain_and_failures(full):
    table = full[0].tasks[0].table
    near, _ = row_of(table, "near")
    assert (near["lr"].text, near["lr"].note) == ("0.1", "chosen in 75 %, at the high edge")
    assert (near["step time"].text, near["step time"].note) == ("1.00", "0.50 to 1.50")
    assert near["failed"].text == "0/8"
    assert row_of(table, "gains")[0]["failed"].text == "1/9"
    alone, grey = row_of(table, "alone: left")
    assert grey
    assert alone["right"].text == "-"  # an untrained head has no figure
    assert alone["Δm"].text == "-"
    assert float(near["Δm"].text) == pytest.approx(near["Δm"].value, abs=0.05)


def test_charts_have_a_line_per_strategy(full):
    response, front = full[0].tasks[0].charts
    assert response.title == "Response to the learning rate"
    assert response.svg.count("<g class=") == len(response.legend) == 10
    assert response.svg.count("<circle") == 9 * 3 + 3
    assert front.title == "Fixed weights and strategies"
    assert {name for name, _ in front.legend} >= {"fixed weights and sum", "gains", "sum"}


def test_facts_of_the_run_are_there(full):
    page, _, markdown = full
    failures = page.failures.rows[0].cells
    assert [cell.text for cell in failures][1:7] == ["gains", "run", "9", "0.1", "5", "812.5"]
    rules = dict(page.rules)
    assert rules["digits: selection"] == "the best & only"
    assert "δ = 1 point" in rules["digits: figure"]
    machine = dict(page.machine)
    assert machine["torch"] == "2.13"
    assert machine["load"] == "6.5 in the median, 3.0 to 10.0"
    said = " ".join(page.limitations)
    assert "at an edge of those tried for near" in said
    assert "runs failed of gains" in said
    assert "the chance in its choice is not in them" in said
    assert "Not measured: the control of conflict rates" in said
    assert "--tune --baselines auto" in page.command
    assert page.command in markdown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("untuned", "Untuned, against sum: gains"),
        ("partial", "11 of 16 planned runs are not there"),
        ("one seed", "No verdict against sum and scaled-sum: an interval needs at least 2 seeds"),
        ("all failed", "digits: every run failed."),
        ("hostile", "identical"),
        ("no setup", "gradsurgery compare --tasks digits --strategies sum,scaled-sum,"),
        ("lower", "lower is better"),
    ],
)
def test_folders_with_little_in_them_have_a_report(name, words, tmp_path):
    html, markdown = write_report(little(tmp_path)[name])
    read = Reader(html.read_text())
    assert words in " ".join(" ".join(read.texts).split())
    assert words in markdown.read_text()
    assert sum(tag == "script" for tag, _ in read.tags) == 1
    tables = [line for line in markdown.read_text().splitlines() if line.startswith("| ")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert len(set(bars[: bars.index(bars[0]) + 3])) == 1


def test_folders_without_a_run_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(gs.InputError, match="give the folder of a comparison"):
        write_report(tmp_path / "empty")
    with pytest.raises(gs.InputError, match="is no folder"):
        write_report(tmp_path / "none")
    with pytest.raises(gs.InputError, match="no runs yet"):
        write_report(write(tmp_path / "begun", [setup(digits={})]))
    assert not (tmp_path / "begun" / "report.html").exists()


def test_a_page_can_be_made_of_lines_alone():
    page = page_of(known(strategies=("sum", "gains")))
    assert page.tasks[0].verdicts == tuple(
        verdict_sentences(conclude(known(strategies=("sum", "gains")))["digits"])[1:]
    )
    assert "gains" in as_markdown(page)
    assert "gains" in as_html(page)


def test_drawings_stay_within_their_frame():
    svg = chart(
        [Series("a", ((0.1, 1.0), (1.0, -1e9))), Series("b", ((0.3, 2.0),), joined=False)],
        "x", "y", logarithmic=True, floor=0.0, ceiling=2.0,
    )  # fmt: skip
    for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', svg):
        assert 62 <= float(x) <= 624
        assert 14 <= float(y) <= 284
    assert ticks(-0.5, 1.5) == [-0.5, 0.0, 0.5, 1.0, 1.5]
    ends = re.search(r"M([\d.-]+) 7H([\d.-]+)", strip(1.0, (-2.0, 4.0), 4.0, 1.0, "better"))
    assert 0 <= float(ends[1]) < 60 < float(ends[2]) <= 120

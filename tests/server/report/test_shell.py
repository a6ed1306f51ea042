"""What every page is made with: figures and tables as files that lie within the page."""

from __future__ import annotations

import base64
import csv
import io
from urllib.parse import urlparse
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from msfl_server.report.charts import learning_curve
from msfl_server.report.shell import csv_link, file_name, svg_link, table_link


def file_of(link):
    kind, _, content = urlparse(link).path.partition(";base64,")
    return kind, base64.b64decode(content).decode()


def test_a_chart_becomes_a_file_that_needs_no_page():
    kind, text = file_of(svg_link(learning_curve("curve", {1: 0.5, 2: 0.7}, {"Ghent": {1: 0.4, 2: 0.6}})))
    assert kind == "image/svg+xml"
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(3.7 * 72, abs=1)
    assert "var(" not in text
    assert "currentColor" not in text


def test_rows_become_a_file_with_all_digits():
    rows = [
        {"metric": "dsc", "mean": 1 / 3, "low": None, "high": float("nan")},
        {"metric": "=cmd|' /C calc'!A0", "mean": -0.5, "low": 1, "high": "a, b"},
    ]
    kind, text = file_of(csv_link(rows))
    assert kind == "text/csv;charset=utf-8"
    header, first, second = csv.reader(io.StringIO(text))
    assert header == ["metric", "mean", "low", "high"]
    assert (float(first[1]), first[2:]) == (1 / 3, ["", ""])
    assert second == ["'=cmd|' /C calc'!A0", "-0.5", "1", "a, b"]  # no spreadsheet runs it


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_spreadsheet_runs_what_a_cell_begins_with(start):
    _, text = file_of(csv_link([{"a": f"{start}SUM(1)", "b": f"{start}1"}]))
    _, cells = csv.reader(io.StringIO(text, newline=""))
    assert cells[0] == f"'{start}SUM(1)"
    assert cells[1] == (f"{start}1" if start in "+-" else f"'{start}1")


def test_names_of_files_hold_nothing_odd():
    assert file_name("Dice similarity, study's grid (95% CI)") == "dice-similarity-study-s-grid-95-ci"


def test_a_table_of_the_page_becomes_a_file_of_its_cells():
    html = """<thead><tr><th scope="col">Fold</th><th>AUROC<br>mean</th></tr></thead>
    <tbody><tr><th>1</th><td class="n">-0.50
      (0.4 to 0.6)</td></tr><tr><th>&lt;b&gt;</th><td>-0.25</td></tr><tr><th>=1+1</th><td></td></tr></tbody>"""
    _, text = file_of(table_link(html))
    assert list(csv.reader(io.StringIO(text))) == [
        ["Fold", "AUROC mean"], ["1", "'-0.50 (0.4 to 0.6)"], ["<b>", "-0.25"], ["'=1+1", ""]
    ]  # fmt: skip


def test_a_file_of_a_templates_table_holds_text_and_no_entities():
    _, text = file_of(table_link(Markup("<tr><th>a site&#39;s</th><td>[&#34;0&#34;]</td><td>R &amp; D</td></tr>")))
    assert list(csv.reader(io.StringIO(text))) == [["a site's", '["0"]', "R & D"]]

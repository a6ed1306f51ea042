"""What every page is made with: the templates, and figures and tables as downloads within the page itself."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html.parser import HTMLParser

from jinja2 import Environment, PackageLoader, StrictUndefined

from msfl_server.report.charts import standalone_svg

Rows = Sequence[Mapping[str, object]]  # column to value, as it is: the first row names the columns
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def render(template: str, **content: object) -> str:
    """A page from its template; everything that it is given is escaped, but for charts."""
    environment = Environment(
        loader=PackageLoader("msfl_server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "svg_link": svg_link,
        "csv_link": csv_link,
        "table_link": table_link,
        "file_name": file_name,
    }
    return environment.get_template(template).render(content)


def svg_link(inline: str) -> str:
    """A chart of the page as the `data:` URI of a file of its own."""
    return _data("image/svg+xml", standalone_svg(inline))


def csv_link(rows: Rows) -> str:
    """Rows as the `data:` URI of a CSV file (RFC 4180), with all digits; what is None or undefined is left empty."""
    return _csv([list(rows[0]), *(row.values() for row in rows)])


def table_link(html: str) -> str:
    """A table of the page as it is shown, its rows of cells, as the `data:` URI of a CSV file."""
    cells = _Cells()
    cells.feed(str(html))  # pieces of Markup would escape what they are joined to
    return _csv([" ".join(cell.split()) for cell in row] for row in cells.rows if row)


def file_name(title: str) -> str:
    """A title as the name of a file, without ending."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


class _Cells(HTMLParser):
    """Reads the texts of a table's cells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, _: object) -> None:
        """A row or a cell begins, or a line within one."""
        if tag == "br":
            self.handle_data(" ")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        """Text of the cell that began last."""
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return _data("text/csv;charset=utf-8", text.getvalue())


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return "'" + value
    return "" if value is None or value != value else value


def _data(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode('ascii')}"

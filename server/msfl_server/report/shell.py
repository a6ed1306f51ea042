"""What every page is made with: the templates, and figures and tables as downloads within the page itself."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from msfl_server.report.charts import standalone_svg

Rows = Sequence[Mapping[str, object]]  # column to value, as it is: the first row names the columns
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
    environment.filters |= {"svg_link": svg_link, "csv_link": csv_link, "file_name": file_name}
    return environment.get_template(template).render(content)


def svg_link(inline: str) -> str:
    """A chart of the page as the `data:` URI of a file of its own."""
    return _data("image/svg+xml", standalone_svg(inline))


def csv_link(rows: Rows) -> str:
    """Rows as the `data:` URI of a CSV file (RFC 4180), with all digits; what is None or undefined is left empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows([[_cell(value) for value in row.values()] for row in rows])
    return _data("text/csv;charset=utf-8", text.getvalue())


def file_name(title: str) -> str:
    """A title as the name of a file, without ending."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None or value != value else value


def _data(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode('ascii')}"

"""One page over the relevance maps of a folder: pictures, figures and the check of each; it opens offline.

The page names patients and shows their scans: it stays at the site, and its account alone may read it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from msfl_client.explanation.deletion import SHARES
from msfl_client.explanation.methods import METHODS
from msfl_client.explanation.rows import LEFT_OUT, TABLE
from msfl_client.prediction.page import render

PAGE, PICTURES = "relevance.html", "relevance"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 460, 190, 56, 30

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{{ title }}</title>
<style>
{{ style | safe }}svg { max-width: 100%; font: 12px system-ui, sans-serif; } svg text { fill: var(--text); }
polyline { fill: none; stroke-width: 2.5; } .map { stroke: #d6401a; } .random { stroke: var(--soft);
stroke-dasharray: 5 4; } .axis { stroke: var(--line); }
</style></head><body>
<header><h1>{{ title }}</h1>
<p class="note"><strong>This page shows scans of patients: keep it at the site.</strong> {{ notice }}</p>
<p>Red speaks for what is explained, blue against it; lesions as the model outlined them have a red border. A map says
what the model's score rests on, not what causes the disease, nor whether the model is right.</p>
<p class="soft">{{ origin }}</p></header>
<main><div class="wide" tabindex="0" role="region" aria-label="Figures of all maps"><table>
<thead><tr><th scope="col">Visit</th><th scope="col">Method</th><th scope="col" class="figure">Score, log odds</th>
<th scope="col" class="figure">Deletion gain</th><th scope="col">To look at</th></tr></thead>
<tbody>{% for row in rows %}<tr><td class="name"><a href="#{{ row.id }}">{{ row.name }}</a></td>
<td>{{ row.method }}</td><td class="figure">{{ row.score }}</td><td class="figure">{{ row.deletion_gain }}</td>
<td>{{ row.short }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="soft">Deletion gain: parts of the brain are replaced by a blurred brain, those that the map holds for most
relevant first, and in random order; by how much lower the score is along the map's order, on the average. At 0 or
below, the map is no better than chance.</p>
{% for row in rows %}<section id="{{ row.id }}" aria-labelledby="{{ row.id }}-name">
<h2 id="{{ row.id }}-name">{{ row.name }}, {{ row.method }}</h2>
{% if row.usable %}<p>Explained: {{ row.explained }}, {{ row.score }}. All voxels add up to {{ row.relevance_sum }} of
{{ row.expected_sum }}{% if row.has_biases %}; biases of the network have the rest{% endif %}.
{% if row.in_lesions != "n/a" %} Of what speaks for the lesions, a share of
{{ row.in_lesions }} lies within them.{% endif %}</p>
{% else %}<p><strong>No map.</strong></p>{% endif %}
{% if row.notes %}<div class="note"><ul>{% for text in row.notes %}<li>{{ text }}</li>{% endfor %}</ul></div>{% endif %}
{% for picture in row.pictures %}<div class="wide" tabindex="0" role="region" aria-label="Map of {{ row.name }}">
<img alt="Slices of {{ row.name }} with the relevance of {{ row.method }}" src="data:image/png;base64,{{ picture }}">
</div>{% endfor %}
{% if row.usable %}<figure>{{ row.curve | safe }}
<figcaption class="soft">Score in log odds, as more and more of the brain is blurred away: in the map's order (solid)
and at random (dashed); the steps are {{ shares }}.</figcaption></figure>{% endif %}
{% if row.files %}<p>Files: {% for name, link in row.files %}<a href="{{ link }}">{{ name }}</a>{{ ", " if not loop.last
}}{% endfor %}</p>{% endif %}
</section>
{% endfor %}</main>
<footer><p class="soft">Table: <a href="{{ table }}">{{ table }}</a></p></footer>
</body></html>
"""


def write_page(output: Path, rows: Sequence[Mapping[str, str]], title: str, origin: str) -> Path:
    """Write `relevance.html` over all rows of a folder's table; returns its path."""
    return render(
        output / PAGE,
        _PAGE,
        title=title,
        rows=[_shown(row, output) for row in rows],
        origin=origin,
        shares=", ".join(f"{100 * share:g}%" for share in SHARES),
        table=TABLE,
    )


def picture_path(output: Path, stem: str, method: str) -> Path:
    """The picture of a visit's maps; `stem` is what its files begin with."""
    return output / PICTURES / f"{stem}_desc-{METHODS[method].in_file_names}.png"


def _shown(row: Mapping[str, str], output: Path) -> dict[str, object]:
    subject, visit, method = row["participant_id"], row["session_id"], row["method"]
    names = [part for part in (subject, visit) if part != "n/a"]
    usable = not row["status"].startswith(LEFT_OUT)
    notes = [*([] if usable else [row["status"].removeprefix(LEFT_OUT)])]
    notes += [row["warnings"]] if row["warnings"] != "n/a" else []
    drawn = picture_path(output, "_".join(names), method) if method in METHODS else output
    return {
        **row,
        "id": "_".join([*names, method]),
        "name": " ".join(names),
        "usable": usable,
        "short": "no map" if not usable else "warnings" if notes else "",
        "notes": notes,
        "has_biases": method in METHODS and METHODS[method].has_biases,
        "pictures": [base64.b64encode(drawn.read_bytes()).decode()] if usable and drawn.is_file() else [],
        "curve": _curve(row) if usable else "",
        "files": _files(output, names, method) if usable and method in METHODS else [],
    }


def _files(output: Path, names: Sequence[str], method: str) -> list[tuple[str, str]]:
    found = sorted(output.joinpath(*names, "anat").glob(f"*_desc-{METHODS[method].in_file_names}_*"))
    return [(path.name, quote(path.relative_to(output).as_posix())) for path in found]


def _curve(row: Mapping[str, str]) -> str:
    """Both curves as SVG, a step of `SHARES` each: they would hide in each other's place on a scale of shares."""
    by_map, at_random = ([float(cell) for cell in row[f"deletion_{how}"].split()] for how in ("by_map", "at_random"))
    low, high = min(*by_map, *at_random), max(*by_map, *at_random)
    reach = max(high - low, 1e-9)

    def points(scores: Sequence[float]) -> str:
        step = (_WIDTH - _LEFT - 12) / max(1, len(scores) - 1)
        return " ".join(
            f"{_LEFT + place * step:.1f},{10 + (_HEIGHT - _BOTTOM - 10) * (high - score) / reach:.1f}"
            for place, score in enumerate(scores)
        )

    bottom = _HEIGHT - _BOTTOM
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="Score along both orders">'
        f'<path class="axis" fill="none" d="M{_LEFT} 10V{bottom}H{_WIDTH - 12}"/>'
        f'<text x="{_LEFT - 6}" y="16" text-anchor="end">{high:.2f}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">nothing</text>'
        f'<text x="{_WIDTH - 12}" y="{_HEIGHT - 8}" text-anchor="end">all blurred away</text>'
        f'<polyline class="random" points="{points(at_random)}"/>'
        f'<polyline class="map" points="{points(by_map)}"/></svg>'
    )

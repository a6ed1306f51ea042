"""One page a site on how its cases came through preprocessing: figures, outliers, pictures; it opens offline.

The page names subjects and shows their scans: it stays in the site's state folder.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from msfl_client.data.bids import Case
from msfl_client.data.derivative import FOLDER, current
from msfl_client.data.qc_record import FEWEST_CASES, LEAST_COVERAGE, LEAST_OVERLAP, OUTLIER_Z, figures, odd_figures
from msfl_client.data.visit_pairs import study_cases
from msfl_client.preprocessing.site import Outcome, picture_path
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.system.files import write_text

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<title>{{ site }}: preprocessing</title>
<style>
:root { --text: #1b1f24; --soft: #57606a; --line: #d9dee3; --page: #fff; --odd: #ffe3b8; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa4ae; --line: #3a424b; --page: #0f1318;
--odd: #5a3d0c; --link: #79b8ff; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem;
color: var(--text); background: var(--page); }
a { color: var(--link); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.odd { background: var(--odd); font-weight: 600; } .note { color: var(--soft); }
img { width: 100%; border-radius: 4px; } details { margin: .4rem 0; } summary { cursor: pointer; }
</style></head><body>
<h1>{{ site }}: preprocessing</h1>
<p>{{ rows | length }} case{{ "s" if rows | length != 1 }} in the common space (MNI152, {{ spacing }} mm){%
if left_out %}, {{ left_out | length }}
left out{% endif %}; {{ num_odd }} to look at. Research use only.</p>
{% if left_out %}<h2>Left out</h2>
<table><tr><th>case</th><th>why</th></tr>
{% for outcome in left_out %}<tr><td>{{ outcome.key }}</td>
<td style="text-align: left; white-space: normal">{{ outcome.reason }}</td></tr>{% endfor %}</table>{% endif %}
{% if rows %}<h2>Figures</h2>
<p class="note">Marked: further from the site's median than {{ z }} robust standard deviations (from {{ fewest }}
cases on), coverage below {{ coverage }}, or overlap below {{ overlap }}. Coverage: share of the template's brain that
the case covers. Overlap: Dice coefficient of the two brains. Similarity: mutual information, of the anchor contrast
with the template and of the other contrasts with the anchor. WM/GM: brightness of white over grey matter. A dash:
nothing was measured, because that step was done before.</p>
<div class="wide"><table><tr><th>case</th>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr><td><a href="#{{ row.key }}">{{ row.key }}</a></td>
{% for name in names %}<td{% if name in row.odd %} class="odd"{% endif %}>{{ row.figures[name] | default("-") }}</td>
{% endfor %}</tr>
{% endfor %}</table></div>
<h2>Pictures</h2>
<p class="note">Red: border of the brain that was found. Blue: border of the template's brain. Yellow: the template's
white matter. Look whether red follows the brain, and yellow the white matter.</p>
{% for row in rows %}<details id="{{ row.key }}"{% if row.odd or loop.index <= 3 %} open{% endif %}>
<summary>{{ row.key }}{% if row.odd %}: <span class="odd">{{ row.odd | join(", ") }}</span>{% endif %}</summary>
{% if row.picture %}<img alt="{{ row.key }}" src="data:image/png;base64,{{ row.picture }}">{% endif %}</details>
{% endfor %}{% endif %}
</body></html>
"""


def page_path(site: SiteConfig) -> Path:
    """Where the page lies."""
    return site.state / FOLDER / "qc" / "index.html"


def write_page(site: SiteConfig, inputs: Inputs, outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """Write the page over all current cases; returns, for each case, the figures that call for a look."""
    cases, _ = study_cases(site, inputs)
    sidecars = {case: sidecar for case in cases if (sidecar := current(case, site, inputs))}
    of_case = {case.key: figures(sidecar.quality) for case, sidecar in sidecars.items()}
    odd = odd_figures(of_case)
    rows = [
        {
            "key": case.key,
            "figures": {name: _shown(value) for name, value in of_case[case.key].items()},
            "odd": odd[case.key],
            "picture": _picture(case, site),
        }
        for case in sidecars
    ]
    content = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            site=site.name,
            spacing=f"{inputs.spacing_mm:g}",
            rows=rows,
            names=list(dict.fromkeys(name for values in of_case.values() for name in values)),
            left_out=[outcome for outcome in outcomes if outcome.status == "left out"],
            num_odd=sum(bool(names) for names in odd.values()),
            z=OUTLIER_Z,
            fewest=FEWEST_CASES,
            coverage=LEAST_COVERAGE,
            overlap=LEAST_OVERLAP,
        )
    )
    write_text(page_path(site), content)
    return odd


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _picture(case: Case, site: SiteConfig) -> str:
    try:
        return base64.b64encode(picture_path(case, site).read_bytes()).decode()
    except OSError:
        return ""

"""What a site gains by taking part, as a page: it opens offline, names no patient, and stays at the site."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment

from msfl_client.personal.record import LOCAL, Gain, Interval, is_higher_better
from msfl_common.metrics.paired import FEWEST, NUM_RESAMPLES
from msfl_common.models.model_card import NOTICE
from msfl_common.system.files import write_bytes
from msfl_common.system.words import counted

PAGE = "gain.html"
WORDS = {
    "shared": "the model that all sites trained together",
    "personal": "this site's own part of the study: its model, or its layers, which stayed here",
    "fine-tuned": "the shared model, trained on at this site alone",
    LOCAL: "trained at this site alone from nothing, on its training patients of the study",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>What {{ gain.site }} gains by study {{ gain.study }}</title>
<style>
:root { --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --page: #fff; --odd: #fff1d6; --edge: #b35900;
--mark: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa4ae; --line: #3a424b; --page: #0f1318;
--odd: #33270f; --edge: #e3a04f; --mark: #79b8ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 900px; padding: 1rem; color: var(--text);
background: var(--page); }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.note { border-left: 4px solid var(--edge); background: var(--odd); padding: .5rem .75rem; margin: .75rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
.figure { text-align: right; white-space: nowrap; } svg { width: 100%; min-width: 220px; height: 22px; }
line { stroke: var(--mark); stroke-width: 3; } .zero { stroke: var(--line); stroke-width: 1; }
circle { fill: var(--mark); } li { overflow-wrap: anywhere; }
</style></head><body>
<header><h1>What {{ gain.site }} gains by study {{ gain.study }}</h1>
<p class="note">{{ notice }} This page stays at the site.</p></header>
<main>{% for line in gain.sentences %}<p><strong>{{ line }}.</strong></p>{% endfor %}
{% if gain.caution %}<p class="note">{{ gain.caution }}.</p>{% endif %}
<p>Measured on {{ counted(gain.num_patients, 'patient') }} ({{ counted(gain.num_cases, 'case') }})
of this site on whom no model here was
trained. {% if gain.split == "test" %}They are the study's test patients, who chose nothing.
{% else %}They are the study's validation patients, so where it chose its best round by them,
the shared model's figures are a little too good.{% endif %} Intervals are of 95%, from {{ draws }} draws of these
patients with replacement, widened for few patients; fewer than {{ fewest }} have none. Differences are of the same
patients.</p>
{% for metric in metrics %}<h2>{{ metric.title }}{% if metric.is_error %} (lower is better){% endif %}</h2>
<div class="wide" tabindex="0" role="region" aria-label="{{ metric.title }} of each model"><table>
<thead><tr><th scope="col">Model</th><th scope="col" class="figure">Mean</th>
<th scope="col" class="figure">Against local-only</th><th scope="col">{{ metric.ends }}</th></tr></thead>
<tbody>{% for row in metric.rows %}<tr><td>{{ row.name }}</td><td class="figure">{{ row.value }}</td>
<td class="figure">{{ row.against }}</td><td>{% if row.plot %}<svg viewBox="0 0 200 22" preserveAspectRatio="none"
role="img" aria-label="{{ row.against }}"><line class="zero" x1="100" x2="100" y1="0" y2="22"/>
<line x1="{{ row.plot[0] }}" x2="{{ row.plot[2] }}" y1="11" y2="11"/><circle cx="{{ row.plot[1] }}" cy="11" r="4"/>
</svg>{% endif %}</td></tr>{% endfor %}</tbody></table></div>
{% endfor %}
<h2>The models</h2>
<ul>{% for name, words, folder in models %}<li><strong>{{ name }}</strong>: {{ words }}. {% if folder
%}Predict with it: <code>msfl-client predict SITE.yaml --model {{ folder }} --output DERIVATIVES</code>{% else
%}Its coordinator hands it out.{% endif %}</li>{% endfor %}</ul>
<p class="soft">This site has {{ gain.num_train_cases }} training cases.{% if gain.steps %} The study gave each
site {{ gain.steps }} steps, and so had the model of this site alone.{% endif %} That a difference is not clear
does not mean that there is none.</p></main>
</body></html>
"""


def write_page(folder: Path, gain: Gain) -> Path:
    """Write `gain.html`; returns its path."""
    metrics = [_metric(gain, name, title) for name, title in gain.metrics.items()]
    models = [(name, WORDS[name], gain.folders.get(name)) for name in gain.models]
    template = Environment(autoescape=True).from_string(_PAGE)
    content = template.render(
        gain=gain, notice=NOTICE, metrics=metrics, models=models, draws=NUM_RESAMPLES, fewest=FEWEST, counted=counted
    )
    write_bytes(folder / PAGE, content.encode(), secret=True)
    return folder / PAGE


def _metric(gain: Gain, name: str, title: str) -> dict[str, object]:
    figures = {model: of[name] for model, of in gain.models.items() if name in of}
    ends = [end for one in figures.values() if one.against_local for end in _ends(one.against_local)]
    most = max((abs(end) for end in ends), default=0.0) or 1.0
    rows = [
        {
            "name": model,
            "value": shown(one.value),
            "against": shown(one.against_local, sign="+") if one.against_local else "",
            "plot": [100 + 95 * end / most for end in _ends(one.against_local)] if one.against_local else None,
        }
        for model, one in figures.items()
    ]
    return {"title": title, "is_error": not is_higher_better(name), "rows": rows, "ends": f"-{most:.2f} to +{most:.2f}"}


def _ends(one: Interval) -> tuple[float, float, float]:
    low, high = (one.mean if end is None else end for end in (one.low, one.high))
    return low, one.mean, high


def shown(one: Interval, sign: str = "") -> str:
    """A mean and its interval."""
    interval = "" if one.low is None or one.high is None else f" ({one.low:{sign}.3f} to {one.high:{sign}.3f})"
    return f"{one.mean:{sign}.3f}{interval}"

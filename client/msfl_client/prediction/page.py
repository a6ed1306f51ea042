"""One page over the lesions that were outlined in a folder: figures, warnings, pictures; it opens offline.

The page names patients and shows their scans: it stays at the site, and its account alone may read it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment

from msfl_client.prediction.lesions_table import TABLE, PredictedCase
from msfl_common.models.model_card import NOTICE
from msfl_common.system.files import write_bytes
from msfl_common.system.words import counted

PAGE, PICTURES = "qc.html", "qc"

STYLE = """:root { --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --page: #fff; --odd: #fff1d6; --edge: #b35900;
--link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa4ae; --line: #3a424b; --page: #0f1318;
--odd: #33270f; --edge: #e3a04f; --link: #79b8ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1rem; color: var(--text);
background: var(--page); }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; overflow-wrap: anywhere; } a { color: var(--link); } .soft { color: var(--soft); }
a:focus-visible, .wide:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.note { border-left: 4px solid var(--edge); background: var(--odd); padding: .5rem .75rem; margin: .75rem 0; }
.note ul { margin: 0; padding-left: 1.1rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide img { display: block; width: 100%; min-width: 620px; background: #000; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
.name, .figure { white-space: nowrap; } .figure { text-align: right; } section { border-top: 1px solid var(--line); }
@media print { .wide { overflow: visible; } .wide img { min-width: 0; } section { break-inside: avoid; } }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{{ title }}</title>
<style>
{{ style | safe }}</style></head><body>
<header><h1>{{ title }}</h1>
<p class="note"><strong>This page shows scans of patients: keep it at the site.</strong> {{ notice }}</p>
<p>{{ rows | length }} case{{ "s" if rows | length != 1 }}, {{ num_out }}
left out, {{ num_warned }} with warnings. A voxel is lesion from a
probability of {{ threshold }} on{% if caution %}.</p><p class="note">{{ caution }}.{% else %}, the study's
threshold.{% endif %}</p>
<p class="soft">{{ origin }}</p></header>
{% if passed_over %}<div class="note"><p>Passed over:</p><ul>{% for text in passed_over %}<li>{{ text }}</li>{% endfor
%}</ul></div>{% endif %}
<main><div class="wide" tabindex="0" role="region" aria-label="Figures of all cases"><table>
<thead><tr><th scope="col">Case</th><th scope="col" class="figure">Lesions</th>
<th scope="col" class="figure">Volume, ml</th><th scope="col">To look at</th></tr></thead>
<tbody>{% for row in rows %}<tr><td class="name"><a href="#{{ row.id }}">{{ row.name }}</a></td>
<td class="figure">{{ row.count }}</td><td class="figure">{{ row.volume }}</td>
<td>{{ row.short }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="soft">In the pictures the patient's right (R) is on the left; lesions have a red border. Axial slices go
through the largest lesions, from below upwards; the coronal and the sagittal one through the largest. Where there is no
lesion they are spread over the head.</p>
{% for row in rows %}<section id="{{ row.id }}" aria-labelledby="{{ row.id }}-name">
<h2 id="{{ row.id }}-name">{{ row.name }}</h2>
<p>{% if row.usable %}{{ row.lesions }}, {{ row.volume }} ml.{% else %}<strong>Left out.</strong>{% endif %}</p>
{% if row.notes %}<div class="note"><ul>{% for text in row.notes %}<li>{{ text }}</li>{% endfor %}</ul></div>{% endif %}
{% if row.picture %}<div class="wide" tabindex="0" role="region" aria-label="Picture of {{ row.name }}">
<img alt="Slices of {{ row.name }} with the borders of {{ row.lesions }}"
src="data:image/png;base64,{{ row.picture }}"></div>{% endif %}
{% if row.files %}<p>Files: {% for name, link in row.files %}<a href="{{ link }}">{{ name }}</a>{{ ", " if not loop.last
}}{% endfor %}</p>{% endif %}
</section>
{% endfor %}</main>
<footer><p class="soft">Table: <a href="{{ table }}">{{ table }}</a></p></footer>
</body></html>
"""


def write_page(
    output: Path,
    rows: Sequence[PredictedCase],
    title: str,
    threshold: float,
    caution: str,
    origin: str,
    passed_over: Sequence[str] = (),
) -> Path:
    """Write `qc.html` over all cases whose files lie in a folder; returns its path.

    Args:
        output: the folder, with the cases' pictures.
        rows: of all cases in it.
        title: what they are, and of which study.
        threshold: by which lesions were outlined.
        caution: what to know of it where it is not the study's own, or nothing.
        origin: who vouches for the model.
        passed_over: folders and cases that were not looked at, and why.
    """
    return render(
        output / PAGE,
        _PAGE,
        title=title,
        rows=[_shown(row, output) for row in rows],
        num_out=sum(row.lesion_count is None for row in rows),
        num_warned=sum(bool(row.warnings) for row in rows),
        threshold=f"{threshold:g}",
        caution=caution,
        origin=origin,
        passed_over=passed_over,
        table=TABLE,
    )


def render(path: Path, page: str, **content: object) -> Path:
    """Write a page of patients' scans, for the site's own people; returns its path."""
    made = Environment(autoescape=True).from_string(page).render(style=STYLE, notice=NOTICE, **content)
    write_bytes(path, made.encode(), secret=True)
    return path


def picture_path(output: Path, participant_id: str, session_id: str | None) -> Path:
    """The picture of a case."""
    return output / PICTURES / f"{_key(participant_id, session_id)}.png"


def _shown(row: PredictedCase, output: Path) -> dict[str, object]:
    """What the page says of a case; one that was left out has no picture and no file that are of this run."""
    visit = None if row.session_id == "n/a" else row.session_id
    usable = row.lesion_count is not None
    notes = [*([] if usable else [row.status.removeprefix("left out: ")])]
    notes += [text for text in row.warnings if text not in row.status]
    return {
        "id": _key(row.participant_id, visit),
        "name": " ".join(part for part in (row.participant_id, visit) if part),
        "usable": usable,
        "lesions": counted(row.lesion_count or 0, "lesion"),
        "count": row.lesion_count if usable else "n/a",
        "volume": f"{row.lesion_volume_ml:.2f}" if row.lesion_volume_ml is not None else "n/a",
        "short": "" if usable and not notes else "left out" if not usable else "warnings",
        "notes": notes,
        "picture": _picture(picture_path(output, row.participant_id, visit)) if usable else "",
        "files": _files(output, row.participant_id, visit) if usable else (),
    }


def _files(output: Path, subject: str, visit: str | None) -> list[tuple[str, str]]:
    """Name and link of each of a case's files."""
    folder = output / subject / (visit or "") / "anat"
    paths = sorted(folder.glob(f"{_key(subject, visit)}_*-*lesion_*"))
    pictures = [path for path in (picture_path(output, subject, visit),) if path.is_file()]
    return [(path.name, quote(path.relative_to(output).as_posix())) for path in (*paths, *pictures)]


def _picture(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return ""


def _key(subject: str, visit: str | None) -> str:
    return "_".join(part for part in (subject, visit) if part)

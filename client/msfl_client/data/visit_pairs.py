"""The cases of a study: a site's visits one by one, or each with the visit before it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from msfl_client.data.bids import Case, find_cases
from msfl_client.data.bids_names import NEW_LESION
from msfl_client.data.bids_tables import visit_times
from msfl_client.data.findings import Finding
from msfl_client.data.label_images import with_labels
from msfl_common.config.contrasts import earlier
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs


def study_cases(site: SiteConfig, inputs: Inputs) -> tuple[list[Case], list[Finding]]:
    """List the cases of a study in every BIDS folder of a site, with what is odd about them.

    Of one visit they are those of `find_cases`. Of two, each visit but a patient's first is a case: its own images,
    those of the visit before as `contrasts.earlier` names them, and the mask of the lesions that appeared in between,
    `*_label-newlesion_mask.nii[.gz]`. Visits without any image are passed over. Their order is that of their times in
    sessions.tsv, where each has one; else that of the numbers in their names. A patient with one visit is a case that
    cannot be used.

    Args:
        site: the site; `data` and `masks` are used.
        inputs: contrasts, and how many visits.

    Returns:
        Cases in order of folder, subject and visit; findings that exclude a case name it.

    Raises:
        CohortError: a folder is missing, named twice, unreadable, or holds no `sub-*` folder.
    """
    if inputs.visits == 1:
        cases, findings = find_cases(site, inputs.contrasts)
        cases, of_labels = with_labels(cases, site, inputs.parcellation)
        return cases, [*findings, *of_labels]
    visits, findings = find_cases(site, inputs.contrasts, NEW_LESION)
    of_case: defaultdict[str | None, list[Finding]] = defaultdict(list)
    for finding in findings:
        of_case[finding.case].append(finding)
    patients: defaultdict[tuple[int, str], list[Case]] = defaultdict(list)
    for visit in visits:
        patients[visit.place].append(visit)
    pairs, said = list[Case](), of_case[None]
    for of_patient in patients.values():
        imaged = [visit for visit in of_patient if visit.images] or of_patient[-1:]
        ordered = _in_order(imaged, site.data[imaged[0].dataset])
        if ordered is None:
            text = f"which of {' and '.join(_name(visit) for visit in imaged)} is the earlier one is not known"
            said.append(Finding("fail", imaged[-1].key, "visits", text))
            ordered = imaged[-1:]
        if len(ordered) == 1:
            pairs += ordered
            said += [finding for finding in of_case[ordered[0].key] if finding.rule != "mask-name"]
        for before, visit in pairwise(ordered):
            pairs.append(_with_earlier(visit, before))
            said += [*_of_images(of_case[before.key], before, visit), *of_case[visit.key]]
    return pairs, said


def _with_earlier(visit: Case, before: Case) -> Case:
    return replace(visit, images={**visit.images, **{earlier(name): path for name, path in before.images.items()}})


def _of_images(findings: Sequence[Finding], before: Case, visit: Case) -> Iterator[Finding]:
    """What was found of the earlier visit's images, as a word on the case."""
    for finding in findings:
        if finding.rule != "mask-name":
            yield replace(finding, case=visit.key, text=f"{_name(before)}: {finding.text}")


def _in_order(visits: Sequence[Case], root: Path) -> list[Case] | None:
    """A patient's visits, oldest first; None where nothing tells."""
    if len(visits) < 2:
        return list(visits)
    times = visit_times(root / visits[0].subject)
    if all(visit.visit_id in times for visit in visits):
        place = {visit: [times[str(visit.visit_id)]] for visit in visits}
    elif len({re.sub(r"\d+", "0", _name(visit)) for visit in visits}) == 1:
        place = {visit: [float(number) for number in re.findall(r"\d+", _name(visit))] for visit in visits}
    else:
        return None
    ordered = sorted(visits, key=place.__getitem__)
    return None if any(place[one] == place[next_one] for one, next_one in pairwise(ordered)) else ordered


def _name(visit: Case) -> str:
    return visit.visit_id or "the visit without a ses- folder"

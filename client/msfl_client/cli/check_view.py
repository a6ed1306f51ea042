"""A site's check as a table for people and as JSON for programs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_client.data.bids import Case
from msfl_client.data.bids_tables import several
from msfl_client.data.case_checks import CaseFacts, Grid
from msfl_client.data.checks import SiteCheck, check_site
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.data.findings import FIXES, Finding
from msfl_client.data.patient_split import split_cases
from msfl_client.data.visit_pairs import study_cases
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs, StudyConfig
from msfl_common.system.progress import progress_bars
from msfl_common.system.words import counted

_WIDE_COLUMNS = 110
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


def check_under_bar(
    site: SiteConfig, inputs: Inputs, num_workers: int, needs_mask: bool = True, chosen: Chosen = ALL
) -> SiteCheck:
    """`check_site` under a progress bar.

    Raises:
        CohortError: a data folder as a whole cannot be used.
        InputError: there is no patient or visit of a name that is chosen.
    """
    if chosen:
        cases = study_cases(site, inputs)[0]
        chosen.check(((case.subject, case.visit_id) for case in cases), f"site {site.name}")
    # nibabel comments on odd headers here; the check says the same in its own words.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    with progress_bars() as bars:
        task = bars.add_task("Checking cases", total=None, note="")

        def on_case(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        return check_site(site, inputs, on_case, num_workers, needs_mask, chosen)


def print_check(
    console: Console, site: SiteConfig, study: StudyConfig | None, check: SiteCheck, are_all: bool = True
) -> None:
    """Print the table of cases, what was excluded and why, and one line on how to fix each kind of fault."""
    wide = console.width >= _WIDE_COLUMNS
    console.print(case_table(site, check, with_reasons=wide))
    if not wide:
        for case in check.found:
            if reasons := _reasons(check, case):
                line = f"{case.key} {check.level(case.key)}: {'; '.join(reasons)}"
                console.print(_coloured(check.level(case.key), line), soft_wrap=True)
    for finding in check.findings:
        if finding.case is None:
            console.print(_coloured(finding.level, finding.text), soft_wrap=True)
    for line in summary_lines(site, study, check, are_all):
        console.print(Text(line), soft_wrap=True)


def case_table(site: SiteConfig, check: SiteCheck, with_reasons: bool = True) -> Table:
    """One row a case: what it holds, what was measured, whether it can be used and why not."""
    table = Table(title=f"Cases of {site.name}", title_justify="left", show_lines=False)
    table.add_column("case", overflow="fold")
    table.add_column("images: voxels, mm", no_wrap=True)
    table.add_column("lesions", justify="right", no_wrap=True)
    table.add_column("scanner", overflow="fold")
    table.add_column("status", no_wrap=True)
    if with_reasons:
        table.add_column("reason", overflow="fold")
    for case in check.found:
        facts = check.facts[case.key]
        level = check.level(case.key)
        reasons = [Text("\n".join(_reasons(check, case)))] if with_reasons else []
        table.add_row(
            Text(case.key),
            Text(_images(case, facts)),
            "-" if facts.lesion_ml is None else f"{facts.num_lesions}, {facts.lesion_ml:.1f} ml",
            Text(case.scanner or "-"),
            _coloured(level, level),
            *reasons,
        )
    return table


def summary_lines(site: SiteConfig, study: StudyConfig | None, check: SiteCheck, are_all: bool = True) -> Iterator[str]:
    """Usable and excluded cases, the split that the study would make, and the fixes."""
    excluded = f", {len(check.excluded)} excluded" if check.excluded else ""
    yield f"{len(check.cases)} of {len(check.found)} cases usable{excluded}."
    by_rule: dict[str, list[str]] = {}
    for finding in check.findings:
        if finding.level == "fail" and finding.case not in (None, *by_rule.get(finding.rule, [])):
            by_rule.setdefault(finding.rule, []).append(str(finding.case))
    for rule, keys in by_rule.items():
        yield f"  excluded by {rule}: {len(keys)} ({several(keys)})"
    if study is not None and study.classification is None:
        yield _split_line(site, study, check)
    to_fix = dict.fromkeys(finding.rule for finding in check.findings if finding.level != "pass")
    if to_fix:
        yield "What to do:"
    for rule in to_fix:
        yield f"  {rule}: {FIXES[rule]}"
    if not are_all:
        yield (
            "Of these patients alone: what a study makes of the site, and whether others hold the same images, is "
            "said without --subject."
        )
    elif study is None:
        yield (
            f"No study is known yet, so this is what a lesion segmentation with {' and '.join(Inputs().contrasts)} "
            "needs; for another, give --study STUDY.yaml, or `msfl-client join` its kit first."
        )


def check_document(site: SiteConfig, study: StudyConfig | None, check: SiteCheck) -> dict[str, Any]:
    """The check as one JSON document."""
    document: dict[str, Any] = {
        "schema_version": 1,
        "site": site.name,
        "num_cases": len(check.found),
        "num_usable": len(check.cases),
        "excluded": check.excluded,
        "findings": [_finding(finding) for finding in check.findings if finding.case is None],
        "cases": [_case(case, check) for case in check.found],
    }
    if study is not None:
        parts = _splits(site, study, check)
        document["split"] = {name: [case.key for case in part] for name, part in parts.items()}
        document["patients"] = {name: _num_patients(part) for name, part in parts.items()}
    return document


def _split_line(site: SiteConfig, study: StudyConfig, check: SiteCheck) -> str:
    parts = _splits(site, study, check)
    verbs = {"training": "train on", "validation": "validate on", "test": "test on"}
    does = ", ".join(f"{verbs[name]} {_of_patients(part)}" for name, part in parts.items() if part or name != "test")
    few = (
        f" Nobody tests: a share of {study.validation.test_fraction:g} is fewer than {study.min_test_patients} "
        "patients (validation.min_test_patients), of whom no figure could be told."
    )
    return f"In study {study.name}: {does}.{few if 'test' in parts and not parts['test'] else ''}"


def _splits(site: SiteConfig, study: StudyConfig, check: SiteCheck) -> dict[str, Sequence[Case]]:
    """The cases of each part; those of a test where a segmentation keeps some."""
    split = split_cases(check.cases, study, site.name)
    parts = {"training": split.training, "validation": split.validation}
    return parts | ({"test": split.test} if study.validation.keeps_test else {})


def _num_patients(part: Sequence[Case]) -> int:
    return len({case.patient for case in part})


def _of_patients(part: Sequence[Case]) -> str:
    return f"{counted(len(part), 'case')} of {counted(_num_patients(part), 'patient')}"


def _reasons(check: SiteCheck, case: Case) -> list[str]:
    """The worst findings, and what lies there in place of a file that is missing."""
    level = check.level(case.key)
    return [
        finding.text
        for finding in check.of_case(case.key)
        if finding.level == level or (finding.level == "warn" and finding.rule in ("name", "mask-name"))
    ]


def _images(case: Case, facts: CaseFacts) -> str:
    """A line for each grid, with the contrasts on it; contrasts that could not be read have none."""
    on_grid: dict[str, list[str]] = {}
    for contrast in case.images:
        grid = facts.grids.get(contrast)
        on_grid.setdefault(_short(grid) if grid else "not usable", []).append(contrast)
    return "\n".join(f"{', '.join(contrasts)}: {grid}" for grid, contrasts in on_grid.items()) or "-"


def _short(grid: Grid) -> str:
    return f"{'x'.join(map(str, grid.shape))}, {'x'.join(f'{size:.2g}' for size in grid.spacing_mm)}"


def _case(case: Case, check: SiteCheck) -> dict[str, Any]:
    facts = check.facts[case.key]
    return {
        "key": case.key,
        "dataset": case.dataset,
        "subject": case.subject,
        "visit": case.visit_id,
        "images": {contrast: str(path) for contrast, path in case.images.items()},
        "mask": str(case.mask) if case.mask else None,
        "scanner": case.scanner,
        "grids": {
            contrast: {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm)}
            for contrast, grid in facts.grids.items()
        },
        "lesion_ml": facts.lesion_ml,
        "num_lesions": facts.num_lesions,
        "status": check.level(case.key),
        "findings": [_finding(finding) for finding in check.of_case(case.key)],
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level,
        "rule": finding.rule,
        "text": finding.text,
        "fix": FIXES[finding.rule],
    }


def _coloured(level: str, text: str) -> Text:
    return Text(text, style=_COLOURS[level])

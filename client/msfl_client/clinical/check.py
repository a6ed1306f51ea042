"""What of a site's patients a study of an outcome can use, for the site's own eyes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_client.clinical.inputs import complete, dataset_of, missing_inputs
from msfl_client.clinical.observations import REASONS, Observations, observations, sees_images
from msfl_client.clinical.splits import split_patients
from msfl_client.data.bids import Case, in_several_folders
from msfl_client.data.findings import FIXES, Finding
from msfl_client.features.cache import TABLE
from msfl_client.features.own_table import own_features
from msfl_client.features.table import FeatureTable, read_features_table, says_of_lesions
from msfl_common.config.classification import DeepModel
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import crossfit_note, num_folds
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CohortError, InputError

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}
_SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class OutcomeCheck:
    """A site's observations, looked through.

    Attributes:
        outcome: the label column, or the endpoint.
        found: the observations that can be used, and why others cannot.
        per_class: class to number of observations.
        splits: observations to train, validate and test on.
        patients: whose they are.
        findings: faults of rows and of the site as a whole.
        missing: input to observations that lack it.
    """

    outcome: str
    found: Observations
    per_class: dict[str, int]
    splits: tuple[int, ...]
    patients: tuple[int, ...]
    findings: tuple[Finding, ...]
    missing: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def reasons(self) -> list[tuple[int, str]]:
        """How many are left out, and for what; of inputs, which."""
        lacking = ", ".join(f"{name} of {count}" for name, count in self.missing.items())
        counts = self.found.counts.items()
        return [(count, REASONS[why] + (f": {lacking}" if why == "no-input" else "")) for why, count in counts]

    @property
    def numbers(self) -> dict[str, float]:
        """Lowest, mean and highest of the numbers to predict; empty of classes."""
        values = [one.value for one in self.found.kept if one.value is not None]
        return {"lowest": min(values), "mean": sum(values) / len(values), "highest": max(values)} if values else {}

    @property
    def is_usable(self) -> bool:
        """Whether there is anything to learn, from inputs that are not the label."""
        return bool(self.found.kept) and all(finding.rule != "leak" for finding in self.findings)

    def raise_if_unusable(self, source: str) -> None:
        """Say in one line why a site cannot take part; return when it can.

        Raises:
            InputError: no observation is left, or an input is the label.
        """
        if not self.found.kept:
            reasons = ", ".join(f"{count} {why}" for count, why in self.reasons)
            first = next((f"; {one.text}" for one in self.findings if one.level == "fail" and one.case is None), "")
            text = f"{source}: no patient can be used for {self.outcome}: {reasons or 'no patient found'}"
            raise CohortError(f"{text}{first}")
        for finding in self.findings:
            if finding.rule == "leak":
                raise InputError(f"{source}: {finding.text}")


def check_outcome(site: SiteConfig, study: StudyConfig, cases: Sequence[Case]) -> OutcomeCheck | None:
    """Look through the clinical tables of a site; None where the study is no classification.

    Inputs that are features are looked up in the site's own table, else in the one that was measured, if there is one.

    Raises:
        InputError: a table cannot be read at all, or the label is in none.
    """
    settings = study.classification
    if settings is None:
        return None
    path = site.state / TABLE
    table = None
    if study.segmentation is None:  # else features wait for a model of lesions
        table = own_features(site) or (read_features_table(path) if path.exists() else None)
    found = observations(cases, site, settings, table)
    measured = table is not None or not settings.features
    findings, missing = list(found.findings), {}
    if not needs_images(site, study):  # else the look at the images says so
        findings += in_several_folders(site, {(one.dataset, one.subject) for one in found.kept})
    if measured and not isinstance(settings.model, DeepModel):
        missing = missing_inputs(found, settings, table)
        found = complete(found, settings, table)
        try:
            dataset_of(found, settings, table)
        except InputError as error:
            findings.append(Finding("fail", None, "leak", str(error)))
    findings += [Finding("warn", None, "outcome", text) for text in _lesions(study, table)]
    if not measured and sees_images(settings):
        shows = "`msfl-client features`" if study.segmentation is None else "the study's segmentation"
        text = f"features are not measured yet; whether each case has them shows after {shows}"
        findings.append(Finding("pass", None, "outcome", text))
    counts = found.per_class(settings.outcome)
    if found.kept:
        findings += [Finding("warn", None, "outcome", text) for text in _lacking(counts)]
    splits = split_patients(found.kept, study, site.name)
    patients = tuple(len({one.patient for one in split}) for split in splits.each)
    name = settings.outcome.column or settings.outcome.endpoint or ""
    return OutcomeCheck(name, found, counts, tuple(map(len, splits.each)), patients, tuple(findings), missing)


def _lesions(study: StudyConfig, table: FeatureTable | None) -> Iterator[str]:
    """What is to be known of features whose lesions are of models that trained on the patients."""
    if study.segmentation is not None and not num_folds(study):
        yield crossfit_note(study)
    if table is not None:
        yield from says_of_lesions(table.rows)


def needs_images(site: SiteConfig, study: StudyConfig | None) -> bool:
    """Whether a check has to look at the site's images: not where a study sees none, or the site's own features."""
    settings = study.classification if study is not None and study.segmentation is None else None
    if settings is None or isinstance(settings.model, DeepModel):
        return True
    return sees_images(settings) and own_features(site) is None


def print_outcome(console: Console, site: SiteConfig, check: OutcomeCheck) -> None:
    """Print classes, splits, reasons for leaving out, and faults with their fix."""
    table = Table(title=f"{check.outcome} at {site.name}", title_justify="left")
    table.add_column("number" if check.numbers else "class")
    table.add_column(f"of {len(check.found.kept)}" if check.numbers else "observations", justify="right")
    for name, count in check.per_class.items():
        table.add_row(Text(name), str(count))
    for name, value in check.numbers.items():
        table.add_row(name, f"{value:.3g}")
    console.print(table)
    patients = len({one.patient for one in check.found.kept})
    splits = ", ".join(
        f"{count} of {of} patients for {split}"
        for split, count, of in zip(_SPLITS, check.splits, check.patients, strict=True)
    )
    lines = [f"{len(check.found.kept)} observations of {patients} patients can be used: {splits}."]
    lines += [f"  left out: {count}, {why}" for count, why in check.reasons]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    for finding in check.findings:
        console.print(Text(f"{finding.case or site.name}: {finding.text}", _COLOURS[finding.level]), soft_wrap=True)
    for rule in dict.fromkeys(finding.rule for finding in check.findings if finding.level != "pass"):
        console.print(Text(f"  {rule}: {FIXES[rule]}"), soft_wrap=True)


def outcome_document(check: OutcomeCheck) -> dict[str, Any]:
    """The same for programs; it names patients and stays at the site."""
    return {
        "outcome": check.outcome,
        "observations": len(check.found.kept),
        "patients": len({one.patient for one in check.found.kept}),
        "per_class": check.per_class,
        **({"numbers": check.numbers} if check.numbers else {}),
        "splits": dict(zip(_SPLITS, check.splits, strict=True)),
        "patients_of_splits": dict(zip(_SPLITS, check.patients, strict=True)),
        "left_out": {str(reason): count for reason, count in check.found.counts.items()},
        "missing_inputs": dict(check.missing),
        "left_out_of": {key: str(reason) for key, reason in check.found.left_out.items()},
        "findings": [
            {"level": one.level, "case": one.case, "rule": one.rule, "text": one.text, "fix": FIXES[one.rule]}
            for one in check.findings
        ],
    }


def _lacking(per_class: dict[str, int]) -> list[str]:
    """What a site's labels lack; the site still helps, because other sites have it."""
    absent = [name for name, count in per_class.items() if not count]
    if len(absent) == len(per_class) - 1:
        only = next(name for name, count in per_class.items() if count)
        return [f"every case is of class {only}: no metric of telling classes apart can be measured here"]
    return [f"no case of class {name}" for name in absent]

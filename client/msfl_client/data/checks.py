"""Which of a site's cases can be used, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from msfl_client.data.bids import Case
from msfl_client.data.case_checks import CaseFacts, CaseReport, check_case, examine_case
from msfl_client.data.check_cache import CheckCache, fingerprint_of, slot_of
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.data.derivative import current, from_derivative, read_sidecar
from msfl_client.data.findings import Finding, Level
from msfl_client.data.near_twins import near_twins
from msfl_client.data.visit_pairs import study_cases
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.errors import CohortError
from msfl_common.system.words import none_of

__all__ = ["CaseFacts", "Finding", "SiteCheck", "check_case", "check_site"]


@dataclass(frozen=True)
class SiteCheck:
    """A site's data, looked through.

    Attributes:
        cases: the usable cases, in order of folder, subject and visit; preprocessed ones with the derivative's
            files.
        excluded: key of every other case, with its reasons.
        findings: everything found, on the folders first, then case by case.
        found: all cases, usable or not.
        facts: key of every case to what was measured.
    """

    cases: list[Case]
    excluded: dict[str, list[str]]
    findings: list[Finding]
    found: list[Case]
    facts: Mapping[str, CaseFacts]

    def raise_if_unusable(self, place: str) -> None:
        """Stop where no case can be used.

        Raises:
            CohortError: not a single one; says where the fixes are.
        """
        if not self.cases:
            raise CohortError(f"{place}: {none_of(len(self.found), 'case')} be used; the fixes are given above")

    @property
    def digests(self) -> dict[str, Mapping[str, str]]:
        """Key of every case to the digests of its images, by contrast."""
        return {key: facts.digests for key, facts in self.facts.items()}

    def of_case(self, key: str) -> list[Finding]:
        """The findings on one case."""
        return [finding for finding in self.findings if finding.case == key]

    def level(self, key: str) -> Level:
        """The worst level among a case's findings."""
        levels = {finding.level for finding in self.of_case(key)}
        return "fail" if "fail" in levels else "warn" if "warn" in levels else "pass"


def check_site(
    site: SiteConfig,
    inputs: Inputs,
    on_progress: Callable[[int, int], None] | None = None,
    num_workers: int = 1,
    needs_mask: bool = True,
    chosen: Chosen = ALL,
) -> SiteCheck:
    """Check every case of a site; files seen before and unchanged are not read again.

    A case that `msfl-client preprocess` has brought into the common space is used from there. Of the
    others, skull-stripped images are used as they are; images that are not skull-stripped are unusable.

    Results are kept in `cache/checks.json` of the state folder, also when the check is interrupted. Cases are
    read by threads, which unpack gzip side by side and, unlike processes, are allowed inside Ray's workers.

    Args:
        site: the site; `data`, `masks` and `state` are used.
        inputs: which contrasts a case must have.
        on_progress: called after each case with the number of cases done and of all cases.
        num_workers: cases read at the same time; each takes up to about 1 GB for 1 mm images.
        needs_mask: whether a case without a manual mask is unusable.
        chosen: the patients and visits to look at; whether others hold the same images is then not seen.

    Raises:
        CohortError: a data folder as a whole cannot be used.
    """
    found, folder_findings = study_cases(site, inputs)
    found = chosen.among(found)
    cache = CheckCache(site.state / "cache" / "checks.json")
    unsaved: list[Finding] = []
    try:
        reports = _examine_all(found, inputs, needs_mask, cache, on_progress, num_workers)
    finally:
        unsaved += _save(cache)
    findings = [finding for finding in folder_findings if finding.case is None] + unsaved
    twins = list(_same_images(found, reports))
    pictures = {key: report.facts.pictures for key, report in reports.items()}
    twins += near_twins(found, pictures, {str(twin.case) for twin in twins})
    preprocessed = {case.key for case in found if current(case, site, inputs)}
    for case in found:
        findings += [finding for finding in folder_findings if finding.case == case.key]
        findings += reports[case.key].findings
        findings += [finding for finding in twins if finding.case == case.key]
        if case.key not in preprocessed:
            findings += _not_preprocessed(case, site, reports[case.key].facts)
    excluded: dict[str, list[str]] = {}
    for finding in findings:
        if finding.level == "fail" and finding.case is not None:
            excluded.setdefault(finding.case, []).append(finding.text)
    usable = [
        from_derivative(case, site) if case.key in preprocessed else case for case in found if case.key not in excluded
    ]
    return SiteCheck(usable, excluded, findings, found, {key: report.facts for key, report in reports.items()})


def _examine_all(
    cases: Sequence[Case],
    inputs: Inputs,
    needs_mask: bool,
    cache: CheckCache,
    on_progress: Callable[[int, int], None] | None,
    num_workers: int,
) -> dict[str, CaseReport]:
    reports: dict[str, CaseReport] = {}
    fingerprints = {case.key: fingerprint_of(case, needs_mask) for case in cases}
    for case in cases:
        known = cache.get(slot_of(case, inputs, needs_mask), fingerprints[case.key])
        if known is not None:
            reports[case.key] = known
    unknown = [case for case in cases if case.key not in reports]
    if on_progress and reports:
        on_progress(len(reports), len(cases))
    pool = ThreadPoolExecutor(max_workers=max(1, num_workers))
    try:
        jobs = {pool.submit(examine_case, case, inputs, needs_mask): case for case in unknown}
        for job in as_completed(jobs):
            case = jobs[job]
            reports[case.key] = job.result()
            slot = slot_of(case, inputs, needs_mask)
            cache.put(slot, fingerprints[case.key], reports[case.key])
            if on_progress:
                on_progress(len(reports), len(cases))
    finally:
        pool.shutdown(cancel_futures=True)
    return reports


def _not_preprocessed(case: Case, site: SiteConfig, facts: CaseFacts) -> Iterator[Finding]:
    """A case that has to be preprocessed, or whose files or settings are others than when it was."""
    heads = {"auto": facts.whole_heads, "none": tuple(facts.grids)}.get(site.preprocessed, ())
    if heads:
        text = f"expected skull-stripped images, or a preprocessed case; not skull-stripped: {', '.join(heads)}"
        yield Finding("fail", case.key, "whole-head", text)
    elif read_sidecar(case, site):
        text = "preprocessed from other files or settings, or by an earlier version; its own images are used instead"
        yield Finding("warn", case.key, "out-of-date", text)


def _same_images(cases: Sequence[Case], reports: Mapping[str, CaseReport]) -> Iterator[Finding]:
    """The same voxels twice: between two patients they would leak from training into validation."""
    seen: dict[str, tuple[Case, str]] = {}
    for case in cases:
        for contrast, digest in reports[case.key].facts.digests.items():
            earlier, earlier_contrast = seen.setdefault(digest, (case, contrast))
            # Of three visits, one is in two cases.
            if earlier.images[earlier_contrast] != case.images[contrast]:
                level: Level = "warn" if earlier.patient == case.patient else "fail"
                text = f"{contrast}: the same voxels as {earlier_contrast} of {earlier.key}"
                yield Finding(level, case.key, "same-image", text)


def _save(cache: CheckCache) -> list[Finding]:
    try:
        cache.save()
    except OSError as error:
        why = f"the results of this check cannot be kept: {error.strerror} ({error.filename})"
        return [Finding("warn", None, "check-cache", why)]
    return []

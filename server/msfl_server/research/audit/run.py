"""An audit: every attack that is built for a study, on simulated patients; and the file that holds what it found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msfl_common.config.classification import Classification, DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, NoCaseOfClassError, UpdateError
from msfl_common.privacy_accounting import planned_epsilon
from msfl_common.system.files import write_json
from msfl_server.research.audit import inversion
from msfl_server.research.audit.finding import RULE, Finding
from msfl_server.research.audit.fitted_networks import read_sequences
from msfl_server.research.audit.folder import RESULTS_FILE, check_auditable, check_cohort
from msfl_server.research.audit.images import read_images
from msfl_server.research.audit.patients import Cohort, read_sites
from msfl_server.research.audit.registry import ATTACKS, Attack
from msfl_server.research.simulation.folder import virtual_sites

OnProgress = Callable[[int, int, str], None]  # parts done, parts in all, and what is done now


@dataclass(frozen=True)
class Audit:
    """What the attacks on a study came to.

    Attributes:
        study: its settings.
        patients: site to its patients.
        num_models: fitted to random halves; 0 of a segmentation.
        findings: a line for each figure and defence.
        not_audited: attacks that are not built for this study.
    """

    study: StudyConfig
    patients: dict[str, int]
    num_models: int
    findings: tuple[Finding, ...]
    not_audited: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        settings = self.study.classification
        return {
            "schema_version": 1,
            "study": self.study.name,
            "model": settings.model.kind if settings else self.study.network.kind,
            "epsilon": planned_epsilon(self.study),
            "patients": self.patients,
            "models": self.num_models,
            "rule": RULE,
            "findings": [_line(one) for one in self.findings],
            "not_audited": list(self.not_audited),
        }


def run_audit(study: StudyConfig, cohort: Path, num_models: int, on_progress: OnProgress) -> Audit:
    """Carry out the attacks; what virtual sites write down is deleted afterwards.

    Args:
        study: a segmentation or a classification.
        cohort: of `make-cohort`.
        num_models: to fit to random halves of the patients; a segmentation needs none.
        on_progress: told what is done.

    Raises:
        InputError: the study cannot be audited, or the cohort is not simulated, cannot be read or is too small.
    """
    check_auditable(study)
    check_cohort(study, cohort)
    with tempfile.TemporaryDirectory(prefix="msfl-audit-") as folder:
        if study.classification is None:
            return _audit_images(study, cohort, Path(folder), on_progress)
        return _audit_outcomes(study, study.classification, cohort, Path(folder), num_models, on_progress)


def _audit_images(study: StudyConfig, cohort: Path, folder: Path, on_progress: OnProgress) -> Audit:
    audited, done, total = inversion.small(study), 0, inversion.num_attacks(study)

    def on_patch() -> None:
        nonlocal done
        done += 1
        on_progress(done, total, inversion.NAME)

    on_progress(0, total, inversion.NAME)
    sites = read_images(audited, virtual_sites(cohort, [], folder, audited))
    found = inversion.audit(audited, sites, on_patch)
    return Audit(study, {name: one.num_patients for name, one in sites.items()}, 0, tuple(found), ())


def _audit_outcomes(
    study: StudyConfig, settings: Classification, cohort: Path, folder: Path, num_models: int, on_progress: OnProgress
) -> Audit:
    attacks = [one for one in ATTACKS if one.reaches(settings)]
    rounds_of_models = 1 + (study.differential_privacy is not None)
    total, done, findings = len(attacks) + num_models * rounds_of_models, 0, list[Finding]()

    def advance() -> None:
        nonlocal done
        done += 1
        on_progress(done, total, now)

    sites = virtual_sites(cohort, [], folder / "all", study)
    if isinstance(settings.model, DeepModel):
        on_progress(0, total, "reading images")
        audited = Cohort(study, {}, {}, num_models, advance, read_sequences(study, sites))
    else:
        few = virtual_sites(cohort, [], folder / "few", study)
        audited = Cohort(study, read_sites(study, sites), read_sites(study, few, few=True), num_models, advance)
    for attack in attacks:
        now = attack.name
        on_progress(done, total, now)
        findings += _carried_out(attack, audited, cohort)
        advance()
    patients = {name: len({*one.training.patients, *one.others.patients}) for name, one in audited.sites.items()}
    patients |= {name: len(own) for name, own in audited.networks.items()}
    left_out = tuple(
        f"{one.name}: not built for {settings.model.kind} with {len(settings.outcome.classes)} classes"
        for one in ATTACKS
        if one not in attacks
    )
    return Audit(study, patients, num_models, tuple(findings), left_out)


def _carried_out(attack: Attack, audited: Cohort, cohort: Path) -> Sequence[Finding]:
    try:
        return attack.audit(audited)
    except (NoCaseOfClassError, UpdateError) as error:
        raise InputError(f"{cohort}: no model comes of so few patients ({error}); audit a larger cohort") from None


def write_results(out: Path, audit: Audit) -> None:
    """Write `audit.json`."""
    write_json(out / RESULTS_FILE, audit.document())


def _line(one: Finding) -> dict[str, Any]:
    measured = asdict(one.measured)
    low, high = measured.pop("low"), measured.pop("high")
    return {"attack": one.attack, "figure": one.figure, "verdict": one.verdict, **measured, "ci95": [low, high]}

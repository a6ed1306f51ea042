"""What a BIDS folder holds of a classification's inputs: usable images, their features, and why there are not more.

It is read as a site's folder is read for training: the same checks, the same features, the same way to the reference
of a harmonization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from msfl_client.clinical.observations import sees_images
from msfl_client.data.bids import Case
from msfl_client.data.checks import SiteCheck, check_site
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.data.derivative import read_sidecar
from msfl_client.data.findings import notes_on_folder, refusals_in, warnings_in
from msfl_client.data.qc_record import poor_fit
from msfl_client.data.visit_pairs import study_cases
from msfl_client.features.cache import features_of
from msfl_client.features.own_table import cases_of_table, own_features
from msfl_client.features.table import FeatureTable
from msfl_client.harmonization.site import FOLDER, harmonize_site
from msfl_client.preprocessing.site import preprocess_site
from msfl_client.segmentation.lesion_model import load_lesion_model
from msfl_common.config.classification import Classification, DeepModel
from msfl_common.config.site import SiteConfig, Words
from msfl_common.errors import CohortError, InputError, RefusedError
from msfl_common.harmonization import Reference
from msfl_common.models.model_folder import REFERENCE_FILE, SEGMENTATION_FOLDER, ModelCard, read_reference

WORK_FOLDER = ".work"
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class KnownInputs:
    """What can be used.

    Attributes:
        site: the folder, and where the work on it is kept.
        cases: usable images; those of the table where the folder brings a table of features.
        subjects: every subject that has a folder, usable or not; none where no images are seen.
        table: features, harmonized where the model's are; None where none are seen.
        reasons: key of a case to why its images, or its features, cannot be used.
        refused: of these, those whose images are there; only what the check says of them.
        warnings: key of a case to what deserves a look in it.
        notes: what of the folder is passed over.
    """

    site: SiteConfig
    cases: tuple[Case, ...] = ()
    subjects: frozenset[str] = frozenset()
    table: FeatureTable | None = None
    reasons: Mapping[str, str] = field(default_factory=dict, hash=False)
    refused: Mapping[str, str] = field(default_factory=dict, hash=False)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()


def model_reference(card: ModelCard, model: Path) -> Reference | None:
    """The reference that the model's features were brought to; None where it sees no feature, or raw ones.

    Raises:
        ModelFolderError: it is damaged.
    """
    assert card.study.classification is not None
    needed = card.harmonization is not None and card.study.classification.features
    return read_reference(model / REFERENCE_FILE) if needed else None


def read_inputs(
    card: ModelCard,
    model: Path,
    source: Path,
    output: Path,
    device: str | Sequence[str],
    num_workers: int,
    on_progress: OnProgress,
    force: bool = False,
    words: Words | None = None,
    chosen: Chosen = ALL,
) -> KnownInputs:
    """Look through a BIDS folder.

    Args:
        card: of a classification.
        model: its folder; a segmentation model in it outlines the lesions.
        source: the BIDS folder.
        output: where results are written, and kept what need not be computed twice.
        device: as in site.yaml.
        num_workers: cases at the same time.
        on_progress: told what is done, how much of it, and of how much.
        force: use images that cannot be right (`findings.DOUBTS`), too.
        words: what the tables' own words mean, as in site.yaml.
        chosen: the patients that are predicted; scanners are brought to a reference from all that there are.

    Raises:
        CohortError: the folder as a whole cannot be used.
        InputError: its table of features cannot be read, or is not what the model was trained on.
    """
    settings = card.study.classification
    assert settings is not None
    site = site_of(source, output, device, words)
    if not sees_images(settings):
        return KnownInputs(site)
    own, reference = _own_table(model, settings, site), model_reference(card, model)
    if own:
        return _harmonized(_of_table(site, own), reference)
    needed = ALL if reference is not None else chosen.whole_patients
    known = _of_images(card, model, site, settings, num_workers, on_progress, force, needed)
    return _harmonized(known, reference)


def site_of(source: Path, output: Path, device: str | Sequence[str] = "cpu", words: Words | None = None) -> SiteConfig:
    """A BIDS folder that is predicted from, as a site of its own; see `read_inputs`."""
    return SiteConfig(name="input", data=(source,), state=output / WORK_FOLDER, device=device, words=words or Words())


def unchecked_inputs(card: ModelCard, model: Path, site: SiteConfig) -> KnownInputs:
    """The patients and visits of a folder, without a look at any image; see `read_inputs`."""
    settings = card.study.classification
    assert settings is not None
    if not sees_images(settings):
        return KnownInputs(site)
    if (own := _own_table(model, settings, site)) is not None:
        return _of_table(site, own)
    cases, _ = study_cases(site, card.study.inputs)
    return KnownInputs(site, tuple(cases), frozenset(case.subject for case in cases))


def _own_table(model: Path, settings: Classification, site: SiteConfig) -> FeatureTable | None:
    measures = isinstance(settings.model, DeepModel) or (model / SEGMENTATION_FOLDER).is_dir()
    return None if measures else own_features(site)  # else a table has lesions of other hands


def _of_table(site: SiteConfig, own: FeatureTable) -> KnownInputs:
    cases = cases_of_table(own, site)
    return KnownInputs(site, cases, frozenset(case.subject for case in cases), own)


def _of_images(
    card: ModelCard,
    model: Path,
    site: SiteConfig,
    settings: Classification,
    num_workers: int,
    on_progress: OnProgress,
    force: bool,
    chosen: Chosen,
) -> KnownInputs:
    checked, failed = _checked(card, site, num_workers, on_progress, chosen)
    found = {case.key: [finding for finding in checked.findings if finding.case == case.key] for case in checked.found}
    reasons = {key: "; ".join(texts) for key, texts in checked.excluded.items()}
    reasons |= {key: "; ".join(texts) for key, of_case in found.items() if (texts := refusals_in(of_case, force))}
    known = KnownInputs(
        site,
        tuple(case for case in checked.cases if case.key not in reasons),
        frozenset(case.subject for case in checked.found),
        None,
        reasons | failed,
        {key: why for key, why in reasons.items() if "contrast" not in {finding.rule for finding in found[key]}},
        {case.key: (*warnings_in(found[case.key]), *_of_preprocessing(case, site)) for case in checked.found},
        notes_on_folder(checked.findings),
    )
    if not settings.features:
        return known
    lesions, cases = None, known.cases
    if (model / SEGMENTATION_FOLDER).is_dir():
        lesions = load_lesion_model(model / SEGMENTATION_FOLDER, site.device)
        cases = tuple(replace(case, mask=None) for case in cases)  # as in training: the model's lesions in every case
    done = 0

    def on_case() -> None:
        nonlocal done
        done += 1
        on_progress("Measuring cases", done, len(cases))

    cache = site.state / "cache" / "features"
    rows, left_out = features_of(cases, card.study.inputs, cache, lesions, num_workers, on_case, are_all=not chosen)
    return replace(known, table=FeatureTable(tuple(rows)), reasons={**reasons, **left_out})


def _of_preprocessing(case: Case, site: SiteConfig) -> tuple[str, ...]:
    sidecar = read_sidecar(case, site)
    return poor_fit(sidecar.quality.coverage, sidecar.quality.template_overlap) if sidecar else ()


def _checked(
    card: ModelCard, site: SiteConfig, num_workers: int, on_progress: OnProgress, chosen: Chosen
) -> tuple[SiteCheck, dict[str, str]]:
    """The folder looked through, its cases preprocessed where not skull-stripped, and by key why some could not be."""

    def check() -> SiteCheck:
        return check_site(
            site,
            card.study.inputs,
            lambda done, total: on_progress("Checking cases", done, total),
            num_workers,
            needs_mask=bool(card.study.inputs.masks),
            chosen=chosen,
        )

    checked, failed = check(), {}
    if any(finding.rule == "whole-head" for finding in checked.findings):
        try:
            outcomes = preprocess_site(
                site,
                card.study.inputs,
                num_workers,
                lambda done, total: on_progress("Preprocessing cases", done, total),
                chosen,
            )
        except CohortError as error:  # not a single one
            return replace(checked, cases=[]), {case.key: str(error) for case in checked.found}
        failed = {outcome.key: outcome.reason for outcome in outcomes if outcome.reason}
        checked = check()
    return checked, failed


def _harmonized(known: KnownInputs, reference: Reference | None) -> KnownInputs:
    """The features brought to the model's reference; those that are there already are taken as they are."""
    if known.table is None or known.table.harmonized_to == (reference.version if reference else None):
        return known
    if reference is None:
        raise InputError(
            f"{known.site.data[0]}: its features are harmonized, to reference {known.table.harmonized_to}; the model "
            "was trained on raw ones: give those"
        )
    try:
        folder = known.site.state / FOLDER
        made = harmonize_site(known.cases, known.cases, known.site, reference, known.table, folder)
    except RefusedError as error:
        why = {row.key: f"not harmonized: {error.why}" for row in known.table.rows}
        return replace(known, table=FeatureTable((), reference.version), reasons={**known.reasons, **why})
    why = {key: f"not harmonized: {reason}" for key, reason in made.left_out.items()}
    return replace(known, table=made.table, reasons={**known.reasons, **why})

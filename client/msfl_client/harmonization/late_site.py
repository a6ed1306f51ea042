"""What a late site fits itself to a reference with: its cases, who of them trains, and their features.

All is as in a round of the study: the same split (`clinical.splits`), the same cases, features of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfl_client.clinical.splits import training_cases
from msfl_client.data.bids import Case
from msfl_client.features.cache import TABLE, digest_of_images
from msfl_client.features.own_table import cases_of_table, own_features
from msfl_client.features.table import FeatureTable, read_features_table
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CohortError, InputError, ModelFolderError
from msfl_common.harmonization import Reference
from msfl_common.models.model_folder import SEGMENTATION_FOLDER, read_card

FindCases = Callable[[bool], Sequence[Case]]  # usable ones; whether they need a mask
Measure = Callable[[Sequence[Case], Path | None], FeatureTable]  # with the model that outlines lesions


@dataclass(frozen=True)
class LateSite:
    """A late site's part of a harmonization.

    Attributes:
        cases: whose features are harmonized.
        training: those that the scanners are fitted to.
        table: features, not harmonized.
        source: where these are from, in a line.
    """

    cases: tuple[Case, ...]
    training: tuple[Case, ...]
    table: FeatureTable
    source: str


def study_of_reference(
    path: Path, reference: Reference, asked: StudyConfig | None, kit: StudyConfig | None
) -> StudyConfig:
    """The study whose split holds patients out: the one that is named, the kit's, or that of the model folder.

    Args:
        path: of the reference; in a model folder, the card beside it has the study.
        reference: that one.
        asked: a study that is named.
        kit: that of the site's kit.

    Raises:
        InputError: there is none, or the reference was made with other settings than its.
    """
    study = asked or (kit if kit is not None and kit.name == reference.study else None)
    if study is None:
        try:
            study = read_card(path.parent).study
        except ModelFolderError:
            raise InputError(
                f"{path}: which patients are held out follows from study {reference.study}: give its file with "
                "--study, or the reference in its model folder"
            ) from None
    if not reference.fits(study.harmonization):
        raise InputError(
            f"{path}: made with other settings than `harmonization` of study {study.name}; give --study the one that "
            f"made it, {reference.study}"
        )
    return study


def gather(
    site: SiteConfig, study: StudyConfig, model: Path, given: Path | None, find: FindCases, measure: Measure
) -> LateSite:
    """Find the site's cases and their features.

    The features are of the table that is given; else, in a classification whose lesions are not its own model's, of the
    tables in the site's BIDS folders; else of the table that `msfl-client features` wrote, if the images are still
    those; else measured. A site without usable images has the tables in its folders in any study.

    Args:
        site: whose.
        study: its split, inputs and stages.
        model: folder with the reference; a study with a segmentation of its own has that in it.
        given: a table of features, or None.
        find: the usable cases with images.
        measure: their features.

    Raises:
        CohortError: there are neither usable images nor a table.
        InputError: a table cannot be read; a study's own model of lesions is not there.
    """
    if given is not None:
        return _of_table(site, study, read_features_table(given), str(given), find)
    own = own_features(site) if study.segmentation is None else None
    if own is not None and study.classification is not None:
        return _of_table(site, study, own, f"{TABLE} of the site's folders", find)
    try:
        cases = tuple(find(False))
    except CohortError:
        cases = ()
        if own is None:
            raise
    if not cases and own is not None:
        return _of_table(site, study, own, f"{TABLE} of the site's folders", find)
    table, source = _measured(site, study, model, cases, measure)
    return LateSite(cases, _training(site, study, cases, table, find), table, source)


def _measured(
    site: SiteConfig, study: StudyConfig, model: Path, cases: tuple[Case, ...], measure: Measure
) -> tuple[FeatureTable, str]:
    if study.segmentation is not None:
        lesions = model / SEGMENTATION_FOLDER
        if not lesions.is_dir():
            raise InputError(
                f"{lesions}: no such folder, but study {study.name} outlines lesions by its own model: give the "
                "reference in its model folder"
            )
        return measure([replace(case, mask=None) for case in cases], lesions), "measured, with the study's own lesions"
    path = site.state / TABLE
    note = ""
    if path.exists():
        table = read_features_table(path)
        if table.measured_from == digest_of_images(cases, study.inputs):
            return table, str(path)
        note = f"; {path} is of other images or settings"
    return measure(cases, None), f"measured from the images, lesions by their masks{note}"


def _of_table(site: SiteConfig, study: StudyConfig, table: FeatureTable, source: str, find: FindCases) -> LateSite:
    cases = cases_of_table(table, site)
    return LateSite(cases, _training(site, study, cases, table, find), table, source)


def _training(
    site: SiteConfig, study: StudyConfig, cases: tuple[Case, ...], table: FeatureTable, find: FindCases
) -> tuple[Case, ...]:
    """Those that the study learns from; a segmentation splits those with a mask, if there are any."""
    if study.classification is not None:
        return training_cases(site, study, cases, table)
    try:
        masked = find(True)
    except CohortError:
        masked = ()
    patients = {case.patient for case in training_cases(site, study, masked or cases, table)}
    return tuple(case for case in cases if case.patient in patients)

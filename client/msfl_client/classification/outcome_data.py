"""What a site can learn a study's outcome from: patients' visits with an outcome, and what is known of them.

Features are those of the site's own table, or computed from its images; in a study that harmonizes, they are brought
to the reference first. Which patients train, validate and test follows from the study's seed.

In a study that trains a model of lesions first, features are computed from images, with the lesions of that model in
every case, so that those it learns from and those it is used on later have lesions of one kind: those of a training
patient are of a model that did not train on them (`LesionModel.for_patient`). Outcomes rest on the tables alone, never
on what the model outlines.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from msfl_client.clinical.inputs import dataset_of
from msfl_client.clinical.observations import REASONS, sees_images, with_uncounted_lesions
from msfl_client.clinical.splits import Splits, split_outcomes, training_cases
from msfl_client.data.bids import Case
from msfl_client.data.case_digest import about_images
from msfl_client.data.checks import check_site
from msfl_client.features.cache import TABLE, features_of
from msfl_client.features.own_table import cases_of_table, own_features
from msfl_client.features.table import FeatureRow, FeatureTable, read_features_table, says_of_lesions
from msfl_client.harmonization.site import FOLDER, TABLE_FILE
from msfl_client.segmentation.lesion_model import handed_lesion_model
from msfl_client.segmentation.upstream_model import HandedModel
from msfl_client.trainer import About, OnProgress
from msfl_common.config.classification import Classification, DeepModel
from msfl_common.config.feature_catalogue import CHANGES, features_measured
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.harmonization import Reference
from msfl_common.models.model_folder import REFERENCE_FILE, read_reference
from msfl_common.system.words import reasons_in_words


@dataclass(frozen=True)
class Harmonized:
    """What a harmonization comes to at a site; nothing where no scanner has enough cases."""

    table: FeatureTable | None = None
    reference: Reference | None = None


@dataclass(frozen=True)
class Assumed:
    """What stands for steps of a study that have not been taken, where a study is foreseen.

    Attributes:
        harmonized: takes the place of the site's own files.
        has_features: whether every case is taken to have every feature, whatever its value, and none is measured.
    """

    harmonized: Harmonized | None = None
    has_features: bool = False


NOTHING_ASSUMED = Assumed()


def read_outcomes(
    site: SiteConfig,
    study: StudyConfig,
    on_progress: OnProgress,
    model: HandedModel | None = None,
    assumed: Assumed = NOTHING_ASSUMED,
) -> OutcomeData:
    """Find the site's images, if the study sees any, and their features, if it needs any.

    Args:
        site: whose.
        study: has a classification.
        on_progress: told what is done.
        model: outlines the lesions of every case; without it, manual masks do.
        assumed: where a study is foreseen.

    Raises:
        CohortError: the folders hold nothing usable.
        InputError: the site's table of features cannot be read.
    """
    assert study.classification is not None
    settings = study.classification
    is_outlined = model is not None or study.segmentation is not None
    own = None if isinstance(settings.model, DeepModel) or is_outlined else own_features(site)
    if own is not None:
        for line in says_of_lesions(own.rows):
            on_progress(site.name, "checked", 0, 0, line)
        return OutcomeData(site, study, cases_of_table(own, site), own, on_progress, assumed.harmonized)
    sees_features = bool(settings.features) or study.harmonization.method != "none"
    needs_features = bool(settings.features) or settings.outcome.endpoint == "activity"
    if not sees_images(settings) and not needs_features:
        return OutcomeData(site, study, (), None, on_progress)
    num_workers = os.cpu_count() or 1

    def on_checked(done: int, total: int) -> None:
        on_progress(site.name, "checking", done, total, "")

    checked = check_site(site, study.inputs, on_checked, num_workers, needs_mask=bool(study.inputs.masks))
    if not needs_features:
        return OutcomeData(site, study, tuple(checked.cases), None, on_progress, digests=checked.digests)
    if assumed.has_features:
        table = FeatureTable(tuple(_stand_ins(checked.cases, study)))
        return OutcomeData(site, study, tuple(checked.cases), table, on_progress, assumed.harmonized, checked.digests)
    to_measure = checked.cases
    if not sees_features:  # the endpoint alone asks for them
        places = with_uncounted_lesions(checked.cases, site)
        to_measure = [case for case in checked.cases if case.place in places]
    done, total = 0, len(to_measure)

    def on_case() -> None:
        nonlocal done
        done += 1
        on_progress(site.name, "features", done, total, "")

    cache = site.state / "cache" / "features"
    if model is not None and any((root / TABLE).exists() for root in site.data):
        on_progress(site.name, "checked", 0, 0, f"{TABLE} is left aside: the study's own model outlines the lesions")
    lesions = handed_lesion_model(model, site) if model is not None else None
    measured = to_measure if model is None else [replace(case, mask=None) for case in to_measure]
    are_all = len(measured) == len(checked.cases)
    rows, unmeasured = features_of(measured, study.inputs, cache, lesions, num_workers, on_case, are_all)
    for key, reason in list(unmeasured.items())[:1]:
        some = f"{len(unmeasured)} of {total} cases cannot be measured, and are left out; the first, {key}: {reason}"
        on_progress(site.name, "checked", 0, 0, some)
    table = FeatureTable(tuple(rows))
    return OutcomeData(site, study, tuple(checked.cases), table, on_progress, assumed.harmonized, checked.digests)


def _stand_ins(cases: Sequence[Case], study: StudyConfig) -> Iterator[FeatureRow]:
    """Rows of unlike values, as measured features are; of a first visit none that compares it with another."""
    rng, seen = np.random.default_rng(0), set[str]()
    inputs = study.inputs
    features = features_measured(inputs.contrasts, inputs.radiomics, inputs.parcellation)
    for case in cases:
        names = [name for name in features if case.patient in seen or name not in CHANGES]
        seen.add(case.patient)
        values = dict(zip(names, map(float, rng.uniform(1, 2, len(names))), strict=True))
        yield FeatureRow(case.subject, case.visit_id, case.scanner, case.dataset, values)


@dataclass(frozen=True)
class OutcomeData:
    """What a site can learn the study's outcome from.

    Attributes:
        site: whose.
        study: has a classification.
        cases: usable images; those of the table where the site brings a table of features, none where none are seen.
        raw: features that are not harmonized; none where none are seen.
        on_progress: told what is done.
        harmonized: what is taken in place of the site's own files, where a study is foreseen.
        digests: of the images, see `SiteCheck.digests`; none where none are seen.
    """

    site: SiteConfig
    study: StudyConfig
    cases: tuple[Case, ...]
    raw: FeatureTable | None
    on_progress: OnProgress
    harmonized: Harmonized | None = None
    digests: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)

    @property
    def settings(self) -> Classification:
        """What is predicted, from what and by which model."""
        assert self.study.classification is not None
        return self.study.classification

    @cached_property
    def splits(self) -> Splits:
        """The usable observations, split by patient; the same before and after harmonization.

        Raises:
            InputError: a table cannot be read, or an input is the label.
        """
        found, splits = split_outcomes(self.site, self.study, self.cases, self.raw)
        dataset_of(found, self.settings, self.raw)  # looks whether an input is the label
        if found.left_out:
            some = "1 patient or visit" if len(found.left_out) == 1 else f"{len(found.left_out)} patients or visits"
            note = f"{some} left out: {reasons_in_words(REASONS[why] for why in found.left_out.values())}"
            self.on_progress(self.site.name, "checked", len(found.kept), len(found.kept), note)
        return splits

    def about_images(self, patients: Collection[str] | None = None) -> About:
        """The images of some patients, or of all; see `case_digest.about_images`."""
        return about_images((one for one in self.cases if patients is None or one.patient in patients), self.digests)

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """The images of the patients that are learned from, all their visits; see `splits.training_cases`."""
        return training_cases(self.site, self.study, self.cases, self.raw)

    @cached_property
    def features(self) -> FeatureTable | None:
        """What the model sees: harmonized where the study harmonizes, and then without cases that could not be.

        Raises:
            RefusedError: the study harmonizes, and this site has not taken its reference.
        """
        if not self.is_harmonized:
            return self.raw
        path = self.site.state / FOLDER / TABLE_FILE
        table = self.harmonized.table if self.harmonized else read_features_table(path) if path.exists() else None
        if table is None:
            raise RefusedError(Code.TOO_FEW_PATIENTS, "not harmonized; what was said when the reference came says why")
        return table

    @property
    def is_harmonized(self) -> bool:
        """Whether the model sees features that were harmonized."""
        return self.raw is not None and self.study.harmonization.method != "none" and bool(self.settings.features)

    @property
    def reference(self) -> Reference:
        """What the features were harmonized to.

        Raises:
            InputError: the site has taken none.
        """
        if self.harmonized is not None and self.harmonized.reference is not None:
            return self.harmonized.reference
        return read_reference(self.site.state / FOLDER / REFERENCE_FILE)

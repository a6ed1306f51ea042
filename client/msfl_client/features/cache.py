"""The features of all cases of a site, cached case by case."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from msfl_client.data.bids import Case
from msfl_client.data.cache_limits import keep_newest, mark_used
from msfl_client.data.check_cache import fingerprint_of
from msfl_client.data.label_images import read_labels
from msfl_client.features.extract import FORMAT, case_features, change_features
from msfl_client.features.own_regions import OwnRegions
from msfl_client.features.table import BY_MODEL, MANUAL, FeatureRow, fault_of
from msfl_client.features.visit_alignment import on_earlier_visit
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.preprocessing.common_space_reader import common_space_of
from msfl_common.config.feature_catalogue import FEATURES, KNOWN_FEATURES, in_order
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError
from msfl_common.system.files import write_json
from msfl_common.system.reading import read_mapping

if TYPE_CHECKING:
    from msfl_client.segmentation.lesion_model import LesionModel

TABLE = Path("features", "features.tsv")  # in a site's state folder
CHOSEN_TABLE = Path("features", "chosen.tsv")  # of some patients: the table of all is left as it is


def features_of(
    cases: Sequence[Case],
    inputs: Inputs,
    cache: Path,
    model: LesionModel | None = None,
    num_workers: int = 1,
    on_case: Callable[[], None] = lambda: None,
    are_all: bool = True,
) -> tuple[list[FeatureRow], dict[str, str]]:
    """Compute the features of every case; a patient's visits are compared in their order.

    Args:
        cases: the site's usable cases.
        inputs: contrasts and spacing.
        cache: folder for the features of each case; what is there for the same files is not computed again.
        model: finds the lesions of cases without a mask; where it trained on a patient, a fold of it that did not.
        num_workers: patients at the same time; each takes about 1 GB at 1 mm.
        on_case: told after each case.
        are_all: whether these are all cases of the site: then what the cache holds beyond them is bounded.

    Returns:
        A row for each case that could be measured, in the order of `cases`, and by key why others could not; one with a
        value that its feature cannot have is among these.
    """
    patients: defaultdict[tuple[int, str], list[Case]] = defaultdict(list)
    for case in cases:
        patients[case.place].append(case)

    def measure(visits: list[Case]) -> dict[str, dict[str, float] | str]:
        return _of_patient(visits, inputs, cache, model and model.for_patient(visits[0].patient), on_case)

    found: dict[str, dict[str, float] | str] = {}
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for of_patient in pool.map(measure, patients.values()):
            found |= of_patient
    if are_all:
        keep_newest(cache, len(cases), ".json")
    rows, left_out = [], {}
    for case in cases:
        features = found[case.key]
        if isinstance(features, str):
            left_out[case.key] = features
        elif fault := fault_of(features):
            left_out[case.key] = f"its images do not look like a brain's, measured {fault.partition('; ')[0]}"
        else:
            lesions = _lesions_of(case, model)
            rows.append(FeatureRow(case.subject, case.visit_id, case.scanner, case.dataset, features, lesions))
    return rows, left_out


def _lesions_of(case: Case, model: LesionModel | None) -> str | None:
    """Who outlined a case's lesions."""
    if case.mask is not None:
        return MANUAL
    return None if model is None else BY_MODEL[model.for_patient(case.patient).has_seen(case.patient)]


def digest_of_images(cases: Sequence[Case], inputs: Inputs) -> str:
    """What a table of features was measured from, but for the model that outlined lesions: images, masks, settings."""
    files = [[case.key, fingerprint_of(case, True)] for case in cases]
    text = json.dumps([FORMAT, list(FEATURES), inputs.model_dump(mode="json"), sorted(files, key=str)])
    return hashlib.sha256(text.encode()).hexdigest()


def _of_patient(
    visits: list[Case], inputs: Inputs, cache: Path, model: LesionModel | None, on_case: Callable[[], None]
) -> dict[str, dict[str, float] | str]:
    """The features of each visit by key, or why there are none."""

    @lru_cache(maxsize=2)  # a visit is needed for itself, and for the one after it
    def space(case: Case) -> CommonSpaceCase:
        read = common_space_of(case, inputs, visits)
        if model is None or read.lesion_DHW is not None:
            return read
        from msfl_client.segmentation.lesion_model import (
            with_predicted_lesions,  # loads torch, which masks alone do not need
        )

        return with_predicted_lesions(read, model)

    found: dict[str, dict[str, float] | str] = {}
    earlier: Case | None = None
    for case in visits:
        try:
            found[case.key] = _of_session(case, earlier, space, _slot(cache, inputs, model, case, earlier), inputs)
            earlier = case
        except (CaseError, OSError) as error:
            found[case.key] = str(error)
        on_case()
    return found


def _of_session(
    case: Case, earlier: Case | None, space: Callable[[Case], CommonSpaceCase], slot: Path, inputs: Inputs
) -> dict[str, float]:
    known = _read(slot)
    if known is None:
        known = case_features(space(case), inputs.radiomics, _own_regions(case, inputs))
        if earlier is not None:
            known |= change_features(space(earlier), on_earlier_visit(space(earlier), space(case)))
        write_json(slot, known)
    return {name: known[name] for name in in_order([name for name in known if name in KNOWN_FEATURES])}


def _own_regions(case: Case, inputs: Inputs) -> OwnRegions | None:
    if inputs.parcellation is None:
        return None
    if case.labels is None:
        raise CaseError(f"no label image of {inputs.parcellation.name}")
    return OwnRegions(read_labels(case.labels, inputs.parcellation), inputs.parcellation)


def _slot(cache: Path, inputs: Inputs, model: LesionModel | None, case: Case, earlier: Case | None) -> Path:
    """Where a case's features are kept: named by everything that they depend on."""
    visits = [visit for visit in (case, earlier) if visit is not None]
    files = [fingerprint_of(visit, True) for visit in visits]
    outlined = all(visit.mask is not None for visit in visits)
    weights = None if model is None or outlined else model.card.weights_sha256
    text = json.dumps([FORMAT, list(FEATURES), inputs.model_dump(mode="json"), files, weights])
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _read(slot: Path) -> dict[str, float] | None:
    mark_used(slot)
    return read_mapping(slot) or None

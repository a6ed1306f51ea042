"""Features of predicted cases, and the same brought to the model's reference, as tables beside the predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfl_client.data.case_checks import check_case
from msfl_client.data.findings import refusals_in
from msfl_client.data.visit_pairs import study_cases
from msfl_client.features.cache import features_of
from msfl_client.features.table import FeatureTable, write_features_table
from msfl_client.harmonization.site import FOLDER, HarmonizedSite, harmonize_site
from msfl_client.segmentation.lesion_model import load_lesion_model
from msfl_common.config.site import SiteConfig
from msfl_common.errors import RefusedError
from msfl_common.harmonization import Reference
from msfl_common.models.model_folder import REFERENCE_FILE, read_reference

RAW_TABLE = "features.tsv"


@dataclass(frozen=True)
class PredictedFeatures:
    """What was measured of predicted cases.

    Attributes:
        num_cases: rows of `features.tsv`.
        harmonized: what `harmonization/` holds; None when nothing could be harmonized.
        reason: why not, or nothing.
    """

    num_cases: int
    harmonized: HarmonizedSite | None
    reason: str


def reference_of_model(model: Path) -> Reference | None:
    """The reference in a model folder; None for a study that harmonized nothing.

    Raises:
        ModelFolderError: it is damaged.
    """
    path = model / REFERENCE_FILE
    return read_reference(path) if path.exists() else None


def measure_predictions(
    model: Path,
    reference: Reference,
    source: Path,
    output: Path,
    device: str | Sequence[str],
    num_workers: int,
    on_case: Callable[[], None] = lambda: None,
    force: bool = False,
) -> PredictedFeatures:
    """Measure the cases of a BIDS folder with the model's lesions, and bring them to the model's reference.

    The scanners of these cases are fitted to the reference as new ones, from all of them; nobody else's figures
    change. A scanner with too few cases stays as it is.

    Args:
        model: a model folder.
        reference: the one that is in it.
        source: BIDS folder of the cases; participants.tsv has their covariates.
        output: gets `features.tsv` and, harmonized, `harmonization/features.tsv`.
        device: as in site.yaml.
        num_workers: patients at the same time.
        on_case: told after each case.
        force: measure what cannot be right, too.
    """
    lesions = load_lesion_model(model, device)
    inputs = lesions.card.study.inputs
    site = SiteConfig(name="input", data=(source,), state=output)
    found, _ = study_cases(site, inputs)
    cases = [
        replace(case, mask=None) for case in found if not refusals_in(check_case(case, inputs, needs_mask=False), force)
    ]
    rows, _ = features_of(cases, inputs, output / ".features", lesions, num_workers, on_case)
    table = FeatureTable(tuple(rows))
    write_features_table(output / RAW_TABLE, table)
    try:
        made = harmonize_site(cases, cases, site, reference, table, output / FOLDER)
    except RefusedError as error:
        return PredictedFeatures(len(rows), None, error.why)
    return PredictedFeatures(len(rows), made, "")

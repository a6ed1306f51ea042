"""Lesions of training patients from a model that trained on them, from models of folds, and those of others.

Sites play the stages of lesions of a study, and measure each patient as they do for the classification. What a feature
of a training patient is better by than that of a patient whom no model saw is what a classification would expect and
not meet. The outcome is drawn from the true lesion volume, so the volume that a model measures can only lose AUROC.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from msfl_client.data.checks import check_site
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.preprocessing.common_space_reader import common_space_of
from msfl_client.segmentation.lesion_model import LesionModel, handed_lesion_model, with_predicted_lesions
from msfl_client.segmentation.upstream_model import handed_model, take_model
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import lesion_stages, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.federation import simulate
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.rounds.stage import Segmentation, StageRun, folder_of
from msfl_server.run.display import run_display
from tests.benchmarks.figure import Figure

SEED, SITES, CASES = 1507, 1, 20
DRAWS, SLOPE = 400, 1.5  # of outcomes, and of their log odds on the true ln volume, in SD
STUDY = StudyConfig.model_validate(
    {
        "name": "crossfit",
        "task": "classification",
        "inputs": {"spacing_mm": 3.0},
        "network": {"kind": "unet", "channels": [8, 16, 32]},
        "training": {"steps_per_round": 100, "batch_size": 4, "patch_voxels": 32},
        "segmentation": {"num_rounds": 3, "quorum": 1},
        "rounds": {"num_rounds": 2, "quorum": 1},
        "validation": {"every_rounds": 3},
        "classification": {
            "outcome": {"column": "activity_1y", "classes": ["0", "1"]},
            "features": ["lesion_volume_ml"],
            "clinical": [],
            "model": {"kind": "logistic"},
        },
    }
)
"""At the shipped floor of five patients: a site's halves have at least as many."""


@dataclass(frozen=True)
class Measured:
    """A case by the model of all training patients, and by the one that the site uses for it."""

    trained: bool
    true_ml: float
    dsc: dict[str, float]
    ml: dict[str, float]


def measure() -> list[Figure]:
    """How much better training patients are measured than others, without folds and with them."""
    with tempfile.TemporaryDirectory() as folder:
        cases = _played(Path(folder))
    trained, others = ([case for case in cases if case.trained is which] for which in (True, False))
    how = f"{len(trained)} visits of training patients, {len(others)} of others, at {SITES} simulated sites of {CASES}"
    apart = {who: _apart(trained, others, who) for who in ("whole", "unseen")}
    figures = []
    for what, target, unit in (("DSC", 0.03, ""), ("error of ln volume", 0.10, ""), ("AUROC", 0.02, "")):
        before, after = apart["whole"][what], apart["unseen"][what]
        name = f"{what}: training patients better than others, cross-fit"
        figures.append(
            Figure(name, after[0], unit, target, "at_most", f"in-sample {before[0]:.3f}", f"{how}; {after[1]}")
        )
        figures.append(
            Figure(f"{what}: the same, in-sample", before[0], unit, None, "at_most", "", f"{how}; {before[1]}")
        )
    return figures


def _apart(trained: Sequence[Measured], others: Sequence[Measured], who: str) -> dict[str, tuple[float, str]]:
    """By how much training patients are better measured than others, and both figures."""
    dsc = [float(np.mean([case.dsc[by] for case in part])) for part, by in ((trained, who), (others, "whole"))]
    error = [_error(part, by) for part, by in ((trained, who), (others, "whole"))]
    lost = [_auroc_lost(part, by) for part, by in ((trained, who), (others, "whole"))]
    return {
        "DSC": (dsc[0] - dsc[1], f"{dsc[0]:.3f} against {dsc[1]:.3f}"),
        "error of ln volume": (error[1] - error[0], f"{error[0]:.3f} against {error[1]:.3f}"),
        "AUROC": (lost[1] - lost[0], f"lost to errors of volume: {lost[0]:.3f} against {lost[1]:.3f}"),
    }


def _error(cases: Sequence[Measured], who: str) -> float:
    """Mean distance of the measured ln(1 + ml) from the true one, its mean over these cases apart."""
    gap_N = np.log1p([case.ml[who] for case in cases]) - np.log1p([case.true_ml for case in cases])
    return float(np.abs(gap_N - gap_N.mean()).mean())


def _auroc_lost(cases: Sequence[Measured], who: str) -> float:
    """AUROC of the true volume less that of the measured one, over outcomes that are drawn from the true one."""
    rng = np.random.default_rng(SEED)
    true_N, found_N = (np.log1p(values) for values in ([c.true_ml for c in cases], [c.ml[who] for c in cases]))
    odds_N: NDArray[np.float64] = SLOPE * (true_N - true_N.mean()) / true_N.std()
    lost = []
    for _ in range(DRAWS):
        outcome_N = rng.random(len(cases)) < expit(odds_N)
        if 0 < outcome_N.sum() < len(cases):
            lost.append(roc_auc_score(outcome_N, true_N) - roc_auc_score(outcome_N, found_N))
    return float(np.mean(lost))


def _played(base: Path) -> list[Measured]:
    make_cohort(base / "cohort", num_sites=SITES, cases_per_site=CASES, seed=SEED, spacing_mm=3.0)
    sites = sites_of_cohort(base / "cohort", base / "run", STUDY)
    handed: Segmentation | None = None
    with run_display(1) as display:
        for stage in lesion_stages(STUDY):
            first = starting_weights(study_at(STUDY, stage))
            run = StageRun(STUDY, first, folder_of(stage, base / "run"), stage, handed)
            simulate(run, sites, "inprocess", _Silent(), display.on_progress)
            handed = run.outcome()
    assert handed is not None
    return [case for site in sites for case in _of_site(site, handed)]


class _Silent:
    """Hears of a run and keeps it to itself."""

    def on_start(self, _: object) -> None:
        """See `Listener`."""

    def on_wait(self, *_: object) -> None:
        """See `Listener`."""

    def on_round(self, _: object) -> None:
        """See `Listener`."""


def _lesions(space: CommonSpaceCase, model: LesionModel) -> NDArray[np.bool_]:
    found = with_predicted_lesions(replace(space, lesion_DHW=None), model).lesion_DHW
    assert found is not None
    return found


def _dsc(found_DHW: NDArray[np.bool_], true_DHW: NDArray[np.bool_]) -> float:
    return float(2 * (found_DHW & true_DHW).sum() / max(1, found_DHW.sum() + true_DHW.sum()))


def _of_site(site: SiteConfig, handed: Segmentation) -> Iterator[Measured]:
    take_model(site, STUDY, lambda _: handed.weights)
    taken = handed_model(site, STUDY)
    assert taken is not None
    model = handed_lesion_model(taken, site)
    visits = defaultdict(list)
    for case in check_site(site, STUDY.inputs).cases:
        visits[case.patient].append(case)
    for patient, cases in visits.items():
        models = {"whole": model, "unseen": model.for_patient(patient)}
        for case in cases:
            space = common_space_of(case, STUDY.inputs, cases)
            assert space.lesion_DHW is not None
            found = {who: _lesions(space, one) for who, one in models.items()}
            yield Measured(
                trained=model.has_seen(patient) == "yes",
                true_ml=float(space.lesion_DHW.sum()) * space.voxel_ml,
                dsc={who: _dsc(lesion_DHW, space.lesion_DHW) for who, lesion_DHW in found.items()},
                ml={who: float(lesion_DHW.sum()) * space.voxel_ml for who, lesion_DHW in found.items()},
            )

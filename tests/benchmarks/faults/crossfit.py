"""Lesions of training patients from a model that trained on them, from models of folds, and those of others.

A site plays the stages of lesions of a study, and measures each patient as it does for the classification. What a
feature of a training patient is better by than that of a patient whom no model saw is what a classification would
expect and not meet. The outcome follows the true lesion volume: whatever is lost is lost to errors of the measured one.

Patches are not augmented, so that a small model knows its patients after a minute: that it does is a figure of its own,
without which the others would say nothing. A fold's model has learnt from half of the patients, so what it measures may
be worse than what others are measured by. Patients are compared at equal true volume.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from msfl_client.data.checks import check_site
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.preprocessing.pipeline import preprocess_case
from msfl_client.segmentation.lesion_model import LesionModel, handed_lesion_model, with_predicted_lesions
from msfl_client.segmentation.upstream_model import handed_model, take_model
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import Stage, lesion_stages, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.federation import simulate
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.rounds.stage import Segmentation, StageRun, folder_of
from msfl_server.run.display import run_display
from tests.benchmarks.figure import Figure

SEED, CASES = 2611, 40
RESAMPLES = 1000  # of patients, for an interval
SLOPE = 1.5  # of the outcome's log odds on the true ln volume, in SD
WAYS = {"whole": "in-sample", "unseen": "cross-fit"}
STUDY = StudyConfig.model_validate(
    {
        "name": "crossfit",
        "task": "classification",
        "inputs": {"spacing_mm": 3.0},
        "network": {"kind": "unet", "channels": [8, 16, 32]},
        "training": {
            "steps_per_round": 300,
            "batch_size": 2,
            "patch_voxels": 32,
            "learning_rate": 0.003,
            "augmentation": {"flip": 0, "affine": 0, "gamma": 0, "bias": 0, "noise": 0, "low_resolution": 0},
        },
        "segmentation": {"num_rounds": 3, "quorum": 1},
        "rounds": {"num_rounds": 2, "quorum": 1},
        "validation": {"every_rounds": 3, "fraction": 0.1},
        "classification": {
            "outcome": {"column": "activity_1y", "classes": ["0", "1"]},
            "features": ["lesion_volume_ml"],
            "clinical": [],
            "model": {"kind": "logistic"},
            "test_fraction": 0.5,
        },
    }
)
"""At the shipped floor of five patients: a site's halves have at least as many."""


@dataclass(frozen=True)
class Measured:
    """A patient by the model of all training patients, and by the one that the site uses for them."""

    trained: bool
    true_ml: float
    dsc: dict[str, float]
    ml: dict[str, float]


def measure() -> list[Figure]:
    """How much better training patients are measured than others, without folds and with them."""
    with tempfile.TemporaryDirectory() as folder:
        handed: Segmentation | None = None
        sites = make_sites(Path(folder))
        for stage in lesion_stages(STUDY):
            handed = train_stage(Path(folder), sites, stage, handed)
        assert handed is not None
        return figures_of(list(measured(sites[0], handed)))


def make_sites(base: Path) -> tuple[SiteConfig, ...]:
    """One simulated site, of its patients' first visits alone: what a classification learns from."""
    make_cohort(base / "cohort", num_sites=1, cases_per_site=CASES, seed=SEED, spacing_mm=3.0)
    for later in list((base / "cohort").rglob("ses-02")):
        shutil.rmtree(later)
    return sites_of_cohort(base / "cohort", base / "run", STUDY)


def train_stage(base: Path, sites: Sequence[SiteConfig], stage: Stage, handed: Segmentation | None) -> Segmentation:
    """Play one stage of lesions; what it and those before it leave."""
    first = starting_weights(study_at(STUDY, stage))
    run = StageRun(STUDY, first, folder_of(stage, base / "run"), stage, handed)
    with run_display(1) as display:
        simulate(run, sites, "inprocess", _Silent(), display.on_progress)
    return run.outcome()


def measured(site: SiteConfig, handed: Segmentation) -> Iterator[Measured]:
    """Each patient of a site. Simulated heads lie on the template, so none is registered."""
    take_model(site, STUDY, lambda _: handed.weights)
    taken = handed_model(site, STUDY)
    assert taken is not None
    model = handed_lesion_model(taken, site)
    for case in check_site(site, STUDY.inputs).cases:
        space = preprocess_case(case, STUDY.inputs, "common-space").case
        true_DHW = space.lesion_DHW
        assert true_DHW is not None
        models = {"whole": model, "unseen": model.for_patient(case.patient)}
        found = {who: _lesions(space, one) for who, one in models.items()}
        yield Measured(
            trained=model.has_seen(case.patient) == "yes",
            true_ml=float(true_DHW.sum()) * space.voxel_ml,
            dsc={who: _dsc(lesion_DHW, true_DHW) for who, lesion_DHW in found.items()},
            ml={who: float(lesion_DHW.sum()) * space.voxel_ml for who, lesion_DHW in found.items()},
        )


def figures_of(cases: Sequence[Measured]) -> list[Figure]:
    """The figures of measured patients, each with an interval over patients."""
    trained, others = ([case for case in cases if case.trained is which] for which in (True, False))
    rng = np.random.default_rng(SEED)
    draws = [
        _compared(*([part[i] for i in rng.integers(len(part), size=len(part))] for part in (trained, others)))
        for _ in range(RESAMPLES)
    ]
    values = _compared(trained, others)
    figures = []
    for name, target, direction in TARGETS:
        low, high = np.nanpercentile([draw[name] for draw in draws], [2.5, 97.5])
        how = f"95% {low:.2f} to {high:.2f}; {len(trained)} training patients, {len(others)} others, a simulated site"
        figures.append(Figure(name, values[name], "", target, direction, "", how))
    return figures


DSC_OWN = "DSC of training patients: in-sample less cross-fit"
SPREAD_OWN = "spread of ln volume about the true one, training patients': in-sample of cross-fit"
DSC_APART = "DSC of training patients less others': {}"
SPREAD = "spread of ln volume about the true one, training patients' of others': {}"
CALIBRATION = "calibration slope at others of what is learnt from the volumes of training patients: {}"
# Only what is compared within patients bears a target: 15 training patients against 24 others leave wide intervals.
TARGETS: tuple[tuple[str, float | None, Literal["at_least", "at_most"]], ...] = (
    (DSC_OWN, 0.05, "at_least"),  # the model knows its patients, and the folds' models do not
    (SPREAD_OWN, None, "at_most"),
    *((name.format(way), None, "at_most") for name in (DSC_APART, SPREAD, CALIBRATION) for way in WAYS.values()),
)


def _compared(trained: Sequence[Measured], others: Sequence[Measured]) -> dict[str, float]:
    """All figures of patients, or of a resample of them."""
    found = {DSC_OWN: float(np.mean([case.dsc["whole"] - case.dsc["unseen"] for case in trained]))}
    num, true_N = len(trained), np.log1p([case.true_ml for case in (*trained, *others)])
    design_N3 = np.column_stack([np.ones(len(true_N)), np.arange(len(true_N)) < num, true_N])
    for who, way in WAYS.items():
        dsc_N = np.array([case.dsc[who] for case in trained] + [case.dsc["whole"] for case in others])
        volume_N = np.log1p([case.ml[who] for case in trained] + [case.ml["whole"] for case in others])
        apart_N = volume_N - design_N3 @ _least_squares(design_N3, volume_N)
        found[DSC_APART.format(way)] = float(_least_squares(design_N3, dsc_N)[1])
        found[SPREAD.format(way)] = float(apart_N[:num].std() / apart_N[num:].std())
        odds_N: NDArray[np.float64] = SLOPE * (true_N - true_N.mean()) / true_N.std()
        learnt = _log_odds(volume_N[:num], expit(odds_N[:num]))
        score_N = learnt[0] + learnt[1] * volume_N[num:]
        found[CALIBRATION.format(way)] = _log_odds(score_N, expit(odds_N[num:]))[1]
    found[SPREAD_OWN] = found[SPREAD.format("in-sample")] / found[SPREAD.format("cross-fit")]
    return found


def _least_squares(design_NP: NDArray[np.float64], values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.lstsq(design_NP, values_N, rcond=None)[0])


def _log_odds(value_N: NDArray[np.float64], probability_N: NDArray[np.float64]) -> tuple[float, float]:
    """Intercept and slope of a logistic model, as from endlessly many outcomes of each patient's probability."""
    fitted = LogisticRegression(C=np.inf).fit(
        np.tile(value_N, 2)[:, None],
        np.repeat([1, 0], len(value_N)),
        sample_weight=np.concatenate([probability_N, 1 - probability_N]),
    )
    return float(fitted.intercept_[0]), float(fitted.coef_[0, 0])


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

"""A shared model fine-tuned at a simulated scanner that it has not seen, on 1, 2 and 5 labelled cases.

As Valverde et al. 2019 (doi 10.1016/j.nicl.2018.101638) adapt a network to another scanner's images from one case to a
few. For each seed there is a cohort of its own: three sites train together, a fourth has other scanners. Of its
patients, of whom the first visit counts alone, some are labelled, and the model is trained on them as
`msfl-client fine-tune` does; the others, the same for each number, say what that brought.
"""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np

from msfl_client.data.patient_split import CaseSplit
from msfl_client.personal.fine_tuning import ADAPTED, Start, start_of
from msfl_client.rounds.own_model import train_alone
from msfl_client.rounds.site_context import build_context
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Inputs, Rounds, StudyConfig, Training
from msfl_common.metrics.paired import Floats, Measured, Stratum
from msfl_common.metrics.paired import measure as interval_of
from msfl_common.models.model_folder import load_model
from msfl_common.models.weights import Weights
from msfl_common.networks.registry import UNet
from msfl_server.research.simulated_cohort import make_cohort
from tests.benchmarks.figure import Figure
from tests.benchmarks.simulated_rounds import tell_nobody, train

SEEDS = (71, 72, 73)
LABELLED = (1, 2, 5)
PATIENTS, TESTED = 6, 10  # at each site that trains; of the unseen one, who test
ROUNDS, STEPS, TUNING = 12, 20, 3  # TUNING: rounds of fine-tuning


def measure() -> list[Figure]:
    """DSC gained over the shared model, with its interval over the test patients of all seeds."""
    gains: dict[int, list[Floats]] = {count: [] for count in LABELLED}
    shared: list[float] = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            before, after = _of_seed(seed, Path(folder))
        shared.append(float(np.nanmean(before)))
        for count, values in after.items():
            gains[count].append(values - before)
    base = f"shared model of 3 sites x {PATIENTS} patients, DSC {', '.join(f'{one:.3f}' for one in shared)}"
    return [_figure(count, values, base) for count, values in gains.items()]


def _figure(count: int, gains: list[Floats], base: str) -> Figure:
    found = _pooled(gains)
    each = ", ".join(f"{np.nanmean(one):+.3f}" for one in gains)
    interval = "no interval" if found.low is None else f"95% CI {found.low:+.3f} to {found.high:+.3f}"
    how = f"{interval}, {found.num_patients} patients of seeds {SEEDS}; each seed: {each}; {TUNING * STEPS} steps"
    target = 0.0 if count == max(LABELLED) else None
    name = f"DSC gained at an unseen scanner, fine-tuned on {count} labelled"
    return Figure(name, found.value, "", target, "at_least", base, how)


def _of_seed(seed: int, folder: Path) -> tuple[Floats, dict[int, Floats]]:
    """DSC of each test patient by the shared model, and by what was made of it with each number of labelled ones."""
    cohort = folder / "cohort"
    counts = [PATIENTS] * 3 + [max(LABELLED) + TESTED]
    make_cohort(cohort, num_sites=4, cases_per_site=counts, seed=seed, spacing_mm=4.0)
    *known, unseen = sorted(cohort.glob("site-*"))
    train(_study(seed), [_site(path.name, path, folder / path.name) for path in known], folder / "run")
    model = folder / "run" / "model"
    people = sorted(path.name for path in unseen.glob("sub-*"))
    tests = _site("tests", _first_visits(unseen, people[max(LABELLED) :], folder / "tests"), folder / "tests-state")
    after = {}
    for count in LABELLED:
        data = _first_visits(unseen, people[:count], folder / f"labelled-{count}")
        site = _site("unseen", data, folder / f"unseen-{count}")
        after[count] = _dsc(tests, seed, _adapted(site, start_of(site, model, TUNING, None)))
    return _dsc(tests, seed, load_model(model)[1]), after


def _adapted(site: SiteConfig, start: Start) -> Weights:
    """The weights that `fine_tune` keeps, trained on all cases, without its models of folds."""
    context = build_context(
        site, start.study, tell_nobody, "final", None, split=lambda cases: CaseSplit(list(cases), [], [])
    )
    return train_alone(context, start.weights, start.num_rounds, site.state / "tuning", ADAPTED, datetime.now)


def _study(seed: int) -> StudyConfig:
    return StudyConfig(
        name="transfer",
        seed=seed,
        inputs=Inputs(spacing_mm=4.0),
        network=UNet(channels=(8, 16, 32)),
        training=Training(steps_per_round=STEPS, patch_voxels=24, learning_rate=0.005),
        rounds=Rounds(num_rounds=ROUNDS),
        min_patients=1,
    )


def _site(name: str, data: Path, state: Path) -> SiteConfig:
    return SiteConfig(name=name, data=(data,), state=state, policy=Policy(min_patients=1))


def _first_visits(dataset: Path, people: list[str], folder: Path) -> Path:
    """A BIDS folder of the first visits of some of the patients of another, masks among its derivatives."""
    folder.mkdir(parents=True)
    for path in dataset.iterdir():
        if path.name == "derivatives":
            for pipeline in path.iterdir():
                _first_visits(pipeline, people, folder / "derivatives" / pipeline.name)
        elif path.name in people:
            (folder / path.name).mkdir()
            (folder / path.name / "ses-01").symlink_to(path / "ses-01")
        elif not path.name.startswith("sub-"):
            (folder / path.name).symlink_to(path)
    return folder


def _dsc(site: SiteConfig, seed: int, weights: Weights) -> Floats:
    """The DSC of each patient."""
    context = build_context(
        site, _study(seed), tell_nobody, "final", None, split=lambda cases: CaseSplit(cases[:1], [], cases)
    )
    assert isinstance(context.learner, SegmentationLearner)
    rows = context.learner.case_metrics(weights, context.learner.test, lambda *_: None)
    return np.array([row["dsc"] for row in rows])


def _pooled(values: list[Floats]) -> Measured:
    """The mean over seeds of the patients' mean, which are resampled within each seed."""

    def stratum(gains_P: Floats) -> Stratum:
        told_P = gains_P[np.isfinite(gains_P)]
        return Stratum(len(told_P), lambda weights_RP: weights_RP @ told_P / weights_RP.sum(axis=1))

    return interval_of([stratum(one) for one in values])

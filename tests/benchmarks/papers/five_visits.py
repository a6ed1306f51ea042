"""The three models of Barulina et al. 2026 on simulated patients with five yearly visits, at reduced size.

Doi 10.20944/preprints202604.1490.v1: 28 patients, T1w slices and subscores of the visits so far, whether the next year
is active; F1 of .62, .80 and .73, without an interval, on 14 observations of which 5 were active, as negative ones had
been filtered out. Here about as many patients are simulated, and as large a share of their years is active. Each model
is trained by federated averaging among three hospitals, with the settings of `msfl-server example five-visits` but for
width, slices, pixels and epochs, and from random weights: none is at hand for pretrained-resnet2d. It is held against
logistic regression on the same inputs, and on the EDSS alone, fitted to the same training patients in one place. All of
them take active from a probability of one half on, and weigh active visits 3.5 times.

Legend: N observations, K classes, P inputs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.classification.outcome_data import OutcomeData
from msfl_client.classification.sequence_maker import SequenceMaker
from msfl_client.classification.visit_sequences import VisitSequence
from msfl_client.classification.visit_volumes import load_volume
from msfl_client.clinical.observations import Observation
from msfl_client.data.bids import find_cases
from msfl_common.config.base import Contrast
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.messages.records import RoundTask
from msfl_common.metrics.classification import CLASSIFICATION_METRICS
from msfl_common.metrics.classification import measure as metrics_of_model
from msfl_common.metrics.intervals import Estimate
from msfl_common.metrics.paired import Floats, Measured, Stratum
from msfl_common.metrics.paired import measure as interval_of
from msfl_common.metrics.scored import Scores
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import sites_of_cohort
from tests.benchmarks.figure import Figure
from tests.benchmarks.simulated_rounds import in_one_place, tell_nobody

STUDY = Path(__file__).parents[3] / "site_configs" / "five-visits.example.yaml"
SEED = 4712
SITES, PATIENTS, VISITS, ACTIVE, TESTED = 3, 10, 5, 0.36, 0.5
WIDTH, SLICES, PIXELS = 8, 24, 32
EPOCHS = {"resnet3d": 10, "pretrained-resnet2d": 40, "resnext": 12}
PROCESSES = 2  # models that train at a time, each on one thread
MOST_MINUTES, THRESHOLD = 10.0, 0.5
COMPONENTS = 10  # principal ones of the training patients' volumes, which logistic regression sees
METRICS = {"f1": "F1", "f05": "F0.5", "auroc": "AUROC"}


@dataclass(frozen=True)
class Tested:
    """The test visits, and what each model says of them.

    Attributes:
        labels_N: whether the year after was active.
        patients: whose they are.
        active_N: of each model, its probability of that.
        seconds: of CPU time, that each deep model's training took.
    """

    labels_N: NDArray[np.int64]
    patients: Sequence[str]
    active_N: Mapping[str, Floats]
    seconds: Mapping[str, float]


def measure() -> list[Figure]:
    """F1, F0.5 and AUROC of each model with intervals over test patients, and how far each is above regression."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = Path(folder) / "cohort"
        make_cohort(
            cohort,
            num_sites=SITES,
            cases_per_site=PATIENTS,
            num_visits=VISITS,
            active=ACTIVE,
            seed=SEED,
            spacing_mm=4.0,
        )
        return figures_of(test_models(cohort, Path(folder) / "state"), best_possible(cohort))


def best_possible(cohort: Path) -> float:
    """AUROC of the log odds that drew the outcomes, over all visits."""
    return float(pd.read_json(cohort / "cohort.json", typ="series")["best_auroc"]["activity"])


def test_models(cohort: Path, state: Path) -> Tested:
    """Train all of them on the training patients, and ask them about the test patients' visits."""
    study = _study(next(iter(EPOCHS)))
    sites = sites_of_cohort(cohort, state, study)
    everyone = in_one_place(sites, state / "together")
    data = _data(everyone, study)
    training, tested = ([*_sequences(data, part)] for part in (data.splits.training, data.splits.test))
    labels_N = np.array([sequence.label for sequence in training])
    found: dict[str, Floats] = {}
    seconds: dict[str, float] = {}
    for kind, (weights, seconds[kind]) in zip(EPOCHS, _train_all(sites), strict=True):
        learner = ImageLearner(_data(everyone, _study(kind)), torch.device("cpu"))
        task = RoundTask(_study(kind), EPOCHS[kind], split="test", threshold=THRESHOLD)
        found[kind] = learner.case_scores(weights, task, tell_nobody).probabilities_NK[:, 1]
    volumes = PCA(COMPONENTS, random_state=0).fit([_pixels(sequence, -1) for sequence in training])
    for name, rows in (
        ("logistic, same inputs", [_inputs(part, volumes) for part in (training, tested)]),
        ("logistic, EDSS alone", [_edss(everyone, part) for part in (data.splits.training, data.splits.test)]),
    ):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight={0: 1, 1: 3.5}, max_iter=1000))
        found[name] = model.fit(rows[0], labels_N).predict_proba(rows[1])[:, 1]
    patients = [sequence.patient for sequence in tested]
    return Tested(np.array([sequence.label for sequence in tested]), patients, found, seconds)


def _study(kind: str) -> StudyConfig:
    """The example's, smaller."""
    study = load_study(STUDY)
    assert study.classification is not None
    model = study.classification.model.model_copy(
        update={"kind": kind, "width": WIDTH, "slices": SLICES, "pixels": PIXELS}
    )
    settings = study.classification.model_copy(update={"model": model, "test_fraction": TESTED})
    validation = study.validation.model_copy(update={"fraction": 0.05})  # nothing is chosen
    return study.model_copy(update={"seed": SEED, "classification": settings, "validation": validation})


def _data(site: SiteConfig, study: StudyConfig) -> OutcomeData:
    """What a site learns from; its tables say of lesions what features would."""
    contrasts: Sequence[Contrast] = study.inputs.contrasts
    return OutcomeData(site, study, tuple(find_cases(site, contrasts)[0]), None, tell_nobody)


def _sequences(data: OutcomeData, part: Sequence[Observation]) -> list[VisitSequence]:
    maker = SequenceMaker(data.study, data.site.state / "cache" / "visits", None, None)
    return [maker.make(one) for one in part]


def _train_all(sites: Sequence[SiteConfig]) -> list[tuple[Weights, float]]:
    """Weights of each model, and CPU seconds of its training."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        training = [pool.submit(_train, _study(kind), sites, epochs) for kind, epochs in EPOCHS.items()]
        return [one.result() for one in training]


def _train(study: StudyConfig, sites: Sequence[SiteConfig], epochs: int) -> tuple[Weights, float]:
    """Federated averaging by number of observations; a round is one epoch of the mean site."""
    torch.set_num_threads(1)
    start = time.process_time()
    data = [_data(site, study) for site in sites]
    counts = [len(one.splits.training) for one in data]
    steps = max(1, round(np.mean(counts) / study.training.batch_size))
    study = study.model_copy(update={"training": study.training.model_copy(update={"steps_per_round": steps})})
    learners = [ImageLearner(_data(site, study), torch.device("cpu")) for site in sites]
    weights = starting_weights(study)
    for number in range(1, epochs + 1):
        answers = [learner.train(weights, number, tell_nobody, 1)[0] for learner in learners]
        weights = {
            name: np.average([answer[name] for answer in answers], axis=0, weights=counts).astype(value.dtype)
            for name, value in weights.items()
        }
    return weights, time.process_time() - start


def _pixels(sequence: VisitSequence, visit: int) -> NDArray[np.float32]:
    """The volume of a visit as a row."""
    path = sequence.volumes[visit]
    assert isinstance(path, Path)
    return load_volume(path).ravel()


def _inputs(sequences: Sequence[VisitSequence], volumes: PCA) -> Floats:
    """Subscores and components of the volume at the last visit, and how they changed since the first."""
    first, last = (
        np.concatenate(
            [
                [sequence.clinical_VE[visit] for sequence in sequences],
                volumes.transform([_pixels(sequence, visit) for sequence in sequences]),
            ],
            axis=1,
        )
        for visit in (0, -1)
    )
    return np.concatenate([last, last - first], axis=1).astype(np.float64)


def _edss(site: SiteConfig, part: Sequence[Observation]) -> Floats:
    """The EDSS of the last visit alone."""
    tables = [
        pd.read_csv(root / "phenotype" / "edss.tsv", sep="\t").set_index(["participant_id", "session_id"])["edss"]
        for root in site.data
    ]
    return np.array([[tables[one.dataset][one.subject, one.visit_id]] for one in part], np.float64)


def figures_of(tested: Tested, best: float) -> list[Figure]:
    """Of each model its metrics, and of the deep ones AUROC above logistic regression and time."""
    count, active = len(tested.labels_N), int(tested.labels_N.sum())
    how = (
        f"seed {SEED}; {SITES} sites x {PATIENTS} patients x {VISITS} visits, {TESTED:.0%} of the patients tested: "
        f"{count} visits, {active} active; T1w of {SLICES} x {PIXELS} x {PIXELS}, width {WIDTH}, threshold {THRESHOLD}"
    )
    everybody = metrics_of_model(_both(np.ones(count)), tested.labels_N, tested.patients, THRESHOLD)
    all_active = {name: f"all called active {everybody[name].mean:.2f}" for name in METRICS}
    figures = []
    for name, active_N in tested.active_N.items():
        told = f"{how}, {EPOCHS[name]} epochs" if name in EPOCHS else how
        found = metrics_of_model(_both(active_N), tested.labels_N, tested.patients, THRESHOLD)
        for metric, title in METRICS.items():
            base = f"best possible over all visits {best:.2f}" if metric == "auroc" else all_active[metric]
            text = f"{_words(found[metric])}; {told}"
            figures.append(Figure(f"{name}, {title}", found[metric].mean, "", None, "at_least", base, text))
    for kind, seconds in tested.seconds.items():
        for other in [name for name in tested.active_N if name not in EPOCHS]:
            gain = _gain(tested, kind, other)
            is_above = gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)
            verdict = "no difference shown" if not is_above else "above" if gain.value > 0 else "below"
            interval = "no interval" if gain.low is None else f"95% CI {gain.low:+.2f} to {gain.high:+.2f}"
            text = f"{verdict}; {interval}, {gain.num_patients} patients"
            name = f"{kind}, AUROC above {other}"
            figures.append(Figure(name, gain.value, "", None, "at_least", other, text))
        text = f"{EPOCHS[kind]} epochs, three sites in one process on one thread"
        figures.append(Figure(f"{kind}, training", seconds / 60, "CPU min", MOST_MINUTES, "at_most", "", text))
    return figures


def _both(active_N: Floats) -> Floats:
    """Probabilities of both classes, N x 2."""
    return np.stack([1 - active_N, active_N], axis=1)


def _words(found: Estimate) -> str:
    return f"95% CI {found.ci95_low:.2f} to {found.ci95_high:.2f}"


def _gain(tested: Tested, name: str, other: str) -> Measured:
    """Difference of AUROC on the same visits; patients are resampled with all of theirs."""
    names, patient_N = np.unique(np.array(tested.patients), return_inverse=True)

    def apart(weights_RP: Floats) -> Floats:
        weights_RN = np.asarray(weights_RP[:, patient_N], np.float64)
        one, two = (
            CLASSIFICATION_METRICS["auroc"].measure(
                Scores(_both(tested.active_N[of]), tested.labels_N, THRESHOLD, weights_RN)
            )
            for of in (name, other)
        )
        return np.asarray(one - two)

    return interval_of([Stratum(len(names), apart)])

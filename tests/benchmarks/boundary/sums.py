"""Rows that a coordinator reads out of a site's sums, bare and guarded, and what the guard costs an honest study."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from msfl_client.classification.feature_models.sums import hinge_margins, hinge_sums, logistic_sums
from msfl_client.classification.outcome_data import read_outcomes
from msfl_client.clinical.inputs import dataset_of
from msfl_client.disclosure.releases import fewest_numbers
from msfl_common.config.classification import Classification
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import RefusedError, RunError
from msfl_common.feature_models import Phase, State, phase_of, predict_proba
from msfl_server.research.audit.bisection import by_coefficients
from msfl_server.research.audit.least_squares import from_newton_points
from msfl_server.research.audit.rows import recovered
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from tests.attacks.feature_sites import DIRECTION, INPUTS, SIZES, Site, play, sites_of, unguarded
from tests.attacks.reading_rows import Oracle, by_hinge, by_two_curvatures
from tests.benchmarks.figure import Figure
from tests.feature_models import design, make_cases, make_settings

SEEDS, SITES, TRAINING, PATIENTS = range(300, 310), 3, 60, 400  # patients of a site that train; of a site
KINDS: Mapping[str, dict[str, Any]] = {
    "logistic": {"kind": "logistic"},
    "linear SVM": {"kind": "linear-svm"},
    "RBF SVM of 10 random features": {"kind": "svm-rbf", "num_features": 10, "inverse_strength": 0.02},
    "LDA": {"kind": "lda"},
    "naive Bayes": {"kind": "naive-bayes"},
    "random forest": {"kind": "random-forest", "num_trees": 30},
}
HOW = "55 training patients, 6 inputs, default policy; to a thousandth of each input's deviation"


def measure() -> list[Figure]:
    """Rows recovered by each attack, and AUROC with and without the guard."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_active(Path(folder) / "active"), *_passive(Path(folder) / "passive"), *_cost(Path(folder) / "cost")]


def _active(folder: Path) -> list[Figure]:
    cases, figures = make_cases(0, SIZES, INPUTS, signal=0.6), []
    attacks: dict[str, tuple[str, Callable[[Oracle, State], list[NDArray[np.float64]]]]] = {
        "slopes of 1e9": ("logistic", partial(by_coefficients, direction_Q=DIRECTION)),
        "a scale of 1e9": ("logistic", partial(by_coefficients, direction_Q=DIRECTION, through="scale")),
        "a scale of 1e9 and a mean": ("logistic", partial(by_coefficients, direction_Q=DIRECTION, through="mean")),
        "a hinge along a line": ("linear-svm", partial(by_hinge, direction_Q=DIRECTION)),
    }
    for name, (kind, attack) in attacks.items():
        settings = make_settings({"kind": kind}, INPUTS)
        sites = sites_of(settings, cases, folder / name.replace(" ", "-"))
        state = play(settings, sites, 1)[-1]
        rows = design(settings, state, cases["site-0"].features_NP)[:, :-1]
        before = recovered(attack(_bare(settings, cases["site-0"]), state), rows)
        after = recovered(attack(sites["site-0"].ask, state), rows)
        figures.append(_rows(name, before, after, HOW))
    return figures


def _passive(folder: Path) -> list[Figure]:
    """What an honest coordinator reads from a study that goes as it should."""
    settings, found = make_settings({"kind": "linear-svm"}, INPUTS), np.zeros(2, dtype=int)
    for seed in range(10):
        cases = make_cases(seed, SIZES, INPUTS, signal=0.6)
        bare = [one for one in unguarded(settings, cases) if phase_of(one) is Phase.FIT]
        sites = sites_of(settings, cases, folder / str(seed))
        try:
            states = [one for one in play(settings, sites) if phase_of(one) is Phase.FIT]
        except RefusedError:
            states = []
        for name, part in cases.items():
            rows = design(settings, bare[0], part.features_NP)[:, :-1]
            found[0] += recovered(by_two_curvatures([_bare(settings, part)(one) for one in bare]), rows)
            found[1] += recovered(by_two_curvatures([sites[name].ask(one) for one in states]), rows)
    figures = [_rows("who passed a margin alone", *map(int, found), f"10 studies of {SIZES} patients, linear SVM")]
    for num_cases, num_inputs in ((9, 8), (12, 6), (20, 6)):
        settings = make_settings({"kind": "logistic"}, num_inputs)
        cases = make_cases(3, (num_cases, 40, 40), num_inputs)
        states = [one for one in unguarded(settings, cases) if phase_of(one) is Phase.FIT]
        part = cases["site-0"]
        answers = [_bare(settings, part)(one) for one in states]
        rows = design(settings, states[0], part.features_NP)[:, :-1]
        labels = np.sort(part.labels_N)[::-1].astype(np.float64)
        read = [from_newton_points(states, answers, num_cases, labels, seed) for seed in range(2)]
        before = max(recovered(list(one), rows) for one in read)
        after = 0 if fewest_numbers(settings) >= num_cases * num_inputs else before
        how = f"{num_cases} patients, {num_inputs} inputs, least squares over {len(states)} Newton points, 2 starts"
        figures.append(_rows(f"least squares over a search ({num_cases} patients)", before, after, how))
    return figures


def _bare(settings: Classification, cases: Dataset) -> Oracle:
    def ask(state: State) -> State:
        inputs = design(settings, state, cases.features_NP)
        if settings.model.kind == "logistic":
            return logistic_sums(inputs, cases.labels_N, state)
        return hinge_sums(inputs, cases.labels_N, state, hinge_margins(inputs, cases.labels_N, state) > 0)

    return ask


def _rows(name: str, before: int, after: int, how: str) -> Figure:
    return Figure(f"rows read by {name}", after, "", 0, "at_most", f"{before} from the bare sums", how)


def _cost(folder: Path) -> list[Figure]:
    """AUROC on patients that nobody learned from, over seeds; the same cohort with and without the guard."""
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
    ended, left_out, num_training = dict.fromkeys(KINDS, 0), 0, 0
    for seed in SEEDS:
        training, test = _patients(folder / str(seed), seed)
        for name, model in KINDS.items():
            settings = _study(model).classification
            assert settings is not None
            sites = sites_of(settings, training, folder / str(seed) / name.replace(" ", "-"))
            try:
                guarded = play(settings, sites)[-1]
            except (RefusedError, RunError):
                ended[name] += 1
                continue
            bare = unguarded(settings, training)[-1]
            scores[name].append((_auroc(settings, bare, test), _auroc(settings, guarded, test)))
            if name == "LDA":
                left_out += sum(_left_out(site, training[of]) for of, site in sites.items())
                num_training += sum(len(part.labels_N) for part in training.values())
    how = f"{SITES} sites, {TRAINING} training patients each, seeds {SEEDS[0]} to {SEEDS[-1]}, EDSS worsening, 7 inputs"
    figures = []
    for name, pairs in scores.items():
        before, after = np.array(pairs).mean(axis=0) if pairs else (np.nan, np.nan)
        told = f"{how}; {ended[name]} of {len(SEEDS)} studies refused"
        figures.append(
            Figure(
                f"AUROC lost to the guard: {name}",
                float(before - after) if pairs else None,
                "",
                0.002,
                "at_most",
                f"{before:.4f} unguarded, {after:.4f} guarded",
                told,
            )
        )
    share = left_out / max(num_training, 1)
    return [*figures, Figure("training patients left out for their group", share, "", None, "at_most", "", how)]


def _left_out(site: Site, cases: Dataset) -> int:
    return len(cases.labels_N) - site.learner.num_train_cases


def _study(model: Mapping[str, Any]) -> StudyConfig:
    classification = {
        "outcome": {"endpoint": "edss-worsening"},
        "features": ("log_lesion_volume", "bpf"),
        "clinical": ("age", "sex", "edss", "disease_duration", "relapses_prior_year"),
        "model": dict(model),
    }
    return StudyConfig.model_validate({"name": "cost", "task": "classification", "classification": classification})


def _patients(folder: Path, seed: int) -> tuple[dict[str, Dataset], Dataset]:
    """Training patients of each site, and all others together."""
    study = _study({"kind": "lda"})
    assert study.classification is not None
    make_records(folder / "cohort", num_sites=SITES, cases_per_site=PATIENTS, seed=seed)
    training, further = {}, []
    for site in sites_of_cohort(folder / "cohort", folder / "out", study):
        data = read_outcomes(site, study, lambda *_: None)
        found = dataset_of([one for part in data.splits.each for one in part], study.classification, data.raw)
        order = np.random.default_rng(seed).permutation(len(found.labels_N))
        training[site.name] = _some(found, np.sort(order[:TRAINING]))
        further.append(_some(found, order[TRAINING:]))
    features, labels = (np.concatenate([getattr(one, name) for one in further]) for name in ("features_NP", "labels_N"))
    return training, Dataset(further[0].names, features, labels, tuple(map(str, range(len(labels)))))


def _some(cases: Dataset, index: NDArray[np.intp]) -> Dataset:
    patients = tuple(cases.patients[number] for number in index)
    return Dataset(cases.names, cases.features_NP[index], cases.labels_N[index], patients)


def _auroc(settings: Classification, state: State, test: Dataset) -> float:
    return float(roc_auc_score(test.labels_N, predict_proba(settings, state, test.features_NP)[:, 1]))

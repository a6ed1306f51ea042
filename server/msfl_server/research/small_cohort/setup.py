"""What a run of pipelines tries, on which cases, and in which folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import scipy
import sklearn
import xgboost

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.system.files import write_json
from msfl_common.system.reading import read_mapping
from msfl_server.research.small_cohort.classifiers import REFINED
from msfl_server.research.small_cohort.folds import patient_classes
from msfl_server.research.small_cohort.search import Search
from msfl_server.research.small_cohort.space import COUNTS, SearchPipeline, Tried

SETUP_FILE = "setup.json"
BLOCKS = 6
_LIBRARIES = (lightgbm, np, scipy, sklearn, xgboost)


@dataclass(frozen=True)
class PipelineSettings:
    """What is tried.

    Attributes:
        study: name of the study.
        classes: names of the classes.
        seed: of the study.
        classifiers: names of `CLASSIFIERS`.
        counts: features that a selection keeps.
        permutations: of the labels.
        best: pipelines of each classifier that are tested by permutations.
        searches: of hyperparameters, after the table.
        search_pipeline: what they are searched with: each classifier's best pipeline, chosen without the case that is
            left out, or rows and columns standardized and all features, whatever came out best.
        pipelines: all, or the standard one alone.
        test_all: test every pipeline by permutations, not the best alone.
        test_tuned: test tuned classifiers by permutations, too, the hyperparameters tuned anew for each.
        groups: the group of each feature, within which a case is scaled, None of one that is not; None: one group.
    """

    study: str
    classes: tuple[str, ...]
    seed: int = 0
    classifiers: tuple[str, ...] = REFINED
    counts: tuple[int, ...] = COUNTS
    permutations: int = 50
    best: int = 10
    searches: tuple[Search, ...] = ()
    search_pipeline: SearchPipeline = "best"
    pipelines: Tried = "all"
    test_all: bool = False
    test_tuned: bool = False
    groups: tuple[str | None, ...] | None = None


def check_cases(cases: Dataset, classes: Sequence[str]) -> None:
    """Are there enough patients of every class for folds within folds?

    Raises:
        InputError: a class has too few, or none.
    """
    counts = Counter(patient_classes(cases.labels_N, cases.patients).values())
    if few := {name: counts[label] for label, name in enumerate(classes) if counts[label] < BLOCKS}:
        found = ", ".join(f"{count} of class {name}" for name, count in few.items())
        raise InputError(
            f"expected at least {BLOCKS} patients of each class, found {found}; add cases, or leave the class out of "
            "study.yaml"
        )


def claim_out(out: Path, cases: Dataset, settings: PipelineSettings) -> None:
    """Make `out` the folder of this run, or see that it is.

    Raises:
        InputError: it holds something else.
    """
    setup = json.loads(json.dumps(_setup(cases, settings)))
    path = out / SETUP_FILE
    if path.exists():
        before = read_mapping(path)
        if changed := [name for name in setup if before.get(name) != setup[name]]:
            raise InputError(
                f"{out}: was started with other {', '.join(changed)}; restore them or choose another --output"
            )
        return
    try:
        if out.exists() and any(out.iterdir()):
            raise InputError(f"{out}: is not empty and holds no run of pipelines; choose another --output")
        write_json(path, setup)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --output") from None


def _setup(cases: Dataset, settings: PipelineSettings) -> dict[str, Any]:
    """What must be the same for runs of two runs to fit together; of the cases, a digest alone."""
    digest = hashlib.sha256()
    digest.update(json.dumps([cases.names, cases.patients]).encode())
    digest.update(np.ascontiguousarray(cases.features_NP).tobytes())
    digest.update(np.ascontiguousarray(cases.labels_N).tobytes())
    versions = {library.__name__: library.__version__ for library in _LIBRARIES}
    if "bayes" in settings.searches:
        versions["optuna"] = version("optuna")
    return {**vars(settings), "cases (the tables)": digest.hexdigest(), "versions": versions}

"""What the description of a setting says of its default, held to what the code does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.svm import SVC
from tests.feature_models import make_settings

from msfl_common.config.classification import DEEP_KINDS
from msfl_common.config.optimisation import optimisation_of, written_out
from msfl_common.config.rounds import Rounds
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import num_folds
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models.kernel_svm import KernelModel
from msfl_common.feature_models.settings import subject_groups
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.base import Strategy
from msfl_common.strategies.fedavg import FedAvg
from msfl_server.study.server_config import ServerConfig

SPREAD = np.array([1.0, 2.0, 3.0])
_STATES = re.compile(r"\b(null|empty|default|unset)\b")
# Nothing is done, or nothing is limited: that is what no value means anyway.
_NOTHING = re.compile(
    r"(null|empty): (none|nothing|no limit|no bound|always|they go on|counted alone|the study trains|any)"
)


def described(models: tuple[type[BaseModel], ...]) -> Iterator[tuple[str, str]]:
    """`Model.field` and its description, of all models below."""
    seen: set[type[BaseModel]] = set()
    left: list[Any] = [*models]
    while left:
        one = left.pop()
        if not (isinstance(one, type) and issubclass(one, BaseModel)):
            left += get_args(one)
        elif one not in seen:
            seen.add(one)
            left += (
                STRATEGIES.values() if one is Strategy else [field.annotation for field in one.model_fields.values()]
            )
            yield from ((f"{one.__name__}.{name}", field.description or "") for name, field in one.model_fields.items())


TEXTS = dict(described((StudyConfig, SiteConfig, ServerConfig)))


def kernel(kind: str, **settings: Any) -> KernelModel:
    model = make_settings({"kind": kind, **settings}, 3).model
    assert isinstance(model, KernelModel)
    return model


def rate_and_decay(text: str) -> None:
    """Each model's own optimiser is in both texts, and no other number."""
    own = {kind: optimisation_of(deep(kind)) for kind in DEEP_KINDS} | {
        "segmentation": optimisation_of(StudyConfig(name="a"))
    }
    is_rate = "at the start" in text
    said: dict[str, str] = {}
    for number, models in re.findall(r"(?<![\d.])(\d[\d.]*) of ((?:a )?[a-z0-9-]+(?: and [a-z0-9-]+)?)", text):
        said |= {model.removeprefix("a "): number for model in models.split(" and ")}
    assert said == {kind: f"{one.learning_rate if is_rate else one.weight_decay:g}" for kind, one in own.items()}
    if is_rate:
        clauses = re.findall(r" of ([^(]+) \((\w+), (constant|decays)", text)
        told = {model.removeprefix("a "): clause for models, *clause in clauses for model in models.split(" and ")}
        assert told == {kind: [one.optimiser, "decays" if one.decays else "constant"] for kind, one in own.items()}


def deep(kind: str, **outcome: Any) -> StudyConfig:
    section = {"outcome": {"endpoint": "activity", **outcome}, "model": {"kind": kind}}
    return StudyConfig.model_validate({"name": "deep", "task": "classification", "classification": section})


def gamma(text: str) -> None:
    """With inputs of variances 1, 4 and 9, as after components."""
    assert "1 / (number of prepared inputs times their mean variance)" in text
    rows = np.random.default_rng(0).normal(size=(5, 3))
    expected = rbf_kernel(rows, rows, gamma=1 / (len(SPREAD) * (SPREAD**2).mean()))
    np.testing.assert_allclose(kernel("svm-rbf")._kernel(SPREAD, rows, rows), expected)


def coef0(text: str) -> None:
    """Ours, and that of scikit-learn, whose defaults the pipelines have."""
    assert "0 is scikit-learn's" in text
    assert SVC(kernel="poly").coef0 == 0
    rows = np.random.default_rng(0).normal(size=(5, 3))
    for value in (0.0, 1.0):
        found = kernel("svm-poly", gamma=0.5, coef0=value)._kernel(SPREAD, rows, rows)
        np.testing.assert_allclose(found, polynomial_kernel(rows, degree=3, gamma=0.5, coef0=value))
    assert kernel("svm-poly") == kernel("svm-poly", coef0=1.0)


def threshold(text: str) -> None:
    said = {int(n): int(k) for k, ns in re.findall(r"(\d) of (\d(?: or \d)?)", text) for n in ns.split(" or ")}
    assert len(said) == 5
    assert said == {num: SecureAggregation().threshold_of(num) for num in said}


def folds(text: str) -> None:
    study = StudyConfig(name="a").model_copy(update={"segmentation": Rounds()})
    assert f"null: {num_folds(study)}" in text


def strategy(text: str) -> None:
    assert "null: fedavg" in text
    assert written_out(StudyConfig(name="a")).strategy == FedAvg()


def observations(text: str) -> None:
    assert "with every, which is its default" in text
    for kind in DEEP_KINDS:
        settings = deep(kind).classification
        assert settings is not None
        assert (settings.outcome.observations, settings.most_visits) == ("every", 5)
    assert make_settings({"kind": "lda"}, 3).outcome.observations == "first"


def groups(text: str) -> None:
    assert "null: over all features" in text
    assert subject_groups(("t1w_gm_median", "bpf"), None) == {"": [0, 1]}


def fewest_who_test(text: str) -> None:
    assert "null: the study's `min_patients`" in text
    assert StudyConfig(name="a", min_patients=7).min_test_patients == 7


STATED: dict[str, Callable[[str], None]] = {
    "Training.learning_rate": rate_and_decay,
    "Training.weight_decay": rate_and_decay,
    "SvmRbf.gamma": gamma,
    "SvmPoly.gamma": gamma,
    "SvmSigmoid.gamma": gamma,
    "SvmPoly.coef0": coef0,
    "SecureAggregation.threshold": threshold,
    "StudyConfig.crossfit": folds,
    "StudyConfig.strategy": strategy,
    "Outcome.observations": observations,
    "Preparation.group_by": groups,
    "Validation.min_test_patients": fewest_who_test,
}
# What these do without a value is no number, and held by the tests of what they are for.
ELSEWHERE = {
    "Validation.best_by",
    "MultiKrum.selected",
    "Harmonization.features",
    "Harmonization.age_knots_years",
    "ServerConfig.public_port",
    "ServerConfig.mlflow",
    "ServerConfig.start_from",
    "Training.freeze_rounds",
    "Policy.max_memory_gb",
    "Policy.keep_content",
    "NumericOutcome.observations",  # as a classification's
    *(f"{kind}.title" for kind in ("NumberValue", "OrderedValue", "YesNoValue", "CategoryValue")),
}


@pytest.mark.parametrize("name", STATED)
def test_a_stated_default_is_the_codes(name: str) -> None:
    STATED[name](TEXTS[name])


def test_every_text_that_states_a_default_is_held() -> None:
    stating = {name for name, text in TEXTS.items() if _STATES.search(_NOTHING.sub("", text))}
    assert stating - set(STATED) == ELSEWHERE

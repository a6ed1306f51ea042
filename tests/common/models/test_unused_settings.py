"""Every setting acts or is said not to: studies of every kind are run, and what is read of their settings recorded."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from tests.feature_models import answers_of, make_cases, make_settings, play
from tests.server.rounds.test_classification import Recorder, grid_of

from msfl_common.config import classification
from msfl_common.config.base import Frozen, validate
from msfl_common.config.ledger import KeepContent
from msfl_common.config.site import Policy, SiteConfig, unused_by_site
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models import first_state, is_finished
from msfl_common.feature_models import settings as feature_settings
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.unused_settings import RULES, inapplicable, leaf_keys, unused_settings
from msfl_common.networks.registry import KINDS as NETWORKS
from msfl_common.strategies.base import Strategy
from msfl_server.aggregation.feature_models.combine import combine
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.rounds.loop import run_rounds

FEATURE_KINDS = tuple(classification.FEATURE_MODELS)
DEEP_KINDS = get_args(classification.DeepModel.model_fields["kind"].annotation)
# Read to hold a study against limits, or to name or write down what is read, whatever is trained.
_LIMITS = {"check_size", "check_request", "beyond_policy", "_devices_of", "_slot", "request_sha256", "check_agreed"}
_LIMITS |= {"inapplicable", "acting_settings"}
# The file's format; how long a site that is away is waited for; a section that is read as a classification's.
_ELSEWHERE = {"schema_version", "rounds.patience_s", "regression"}
# Read in every run, and not acting where a rule says so: held by values below.
_BY_VALUE = {
    "rounds.num_rounds",
    "rounds.max_share",
    "classification.model.inverse_strength",
    "classification.model.l1_ratio",
    "differential_privacy",
    "strategy",  # refused where it does not act, so that none is read
    "inputs.lesion_classes",  # as above: read in every run, to know the metrics
}

# Of `inputs`, what a site does not read that brings a table of features of its own.
_OF_IMAGES = ("contrasts", "spacing_mm", "visits", "denoising", "radiomics", "parcellation")


@contextmanager
def recorded_reads() -> Iterator[set[tuple[str, str]]]:
    """(class, field) of all settings that are read meanwhile; what a validation or a limit reads is not counted."""
    reads: set[tuple[str, str]] = set()
    bases = (Frozen, feature_settings.Frozen, *NETWORKS, Strategy)

    def getattribute(config: BaseModel, name: str) -> Any:
        owner = type(config).__name__, name
        if owner not in reads and name in type(config).model_fields and not _is_check():
            reads.add(owner)
        return object.__getattribute__(config, name)

    with pytest.MonkeyPatch.context() as patch:
        for base in bases:
            patch.setattr(base, "__getattribute__", getattribute, raising=False)
        yield reads


def _is_check() -> bool:
    frame = sys._getframe(2)
    while frame is not None:  # up to what called
        code = frame.f_code
        if code.co_name in _LIMITS or code.co_filename.endswith("pydantic/main.py"):
            return True
        if code.co_name == "_answer_safely" or not ("msfl" in code.co_filename or code.co_filename == __file__):
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False


def owners(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, tuple[str, str]]]:
    """Each dotted key, and the class and field that it is."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from owners(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", (type(config).__name__, name)


def unread_of(study: StudyConfig, sites: tuple[SiteConfig, ...], out: Path) -> set[str]:
    """The settings that a whole run, server and sites, does not read."""
    with recorded_reads() as reads:
        run_rounds(grid_of(sites), study, starting_weights(study), out, Recorder())
    return {key for key, owner in owners(study) if owner not in reads} - _ELSEWHERE


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of 60 patients, as tables."""
    folder = tmp_path_factory.mktemp("records") / "patients"
    make_records(folder, num_sites=1, cases_per_site=60)
    return folder


@pytest.fixture
def imaged(make_site: Callable[..., Any]) -> SiteConfig:
    """A site of ten patients with images, masks, an age and a label."""
    site = make_site(subjects=[f"sub-{number:02}" for number in range(10)])
    rows = [f"sub-{number:02}\t{30 + number}\t{number % 2}" for number in range(10)]
    (site.root / "participants.tsv").write_text("\n".join(["participant_id\tage\tlabel", *rows]) + "\n")
    policy = Policy(min_patients=1, tasks=("lesion-segmentation", "classification"), refuse_models=())
    return site.config(policy=policy)  # type: ignore[no-any-return]


def study_of(model: Mapping[str, Any], **changes: Any) -> StudyConfig:
    content: dict[str, Any] = {
        "name": "settings",
        "task": "classification",
        "min_patients": 1,
        "inputs": {"spacing_mm": 4.0},
        "model": {"channels": [4, 8]},
        "training": {"steps_per_round": 2, "batch_size": 2, "patch_voxels": 16},
        "rounds": {"num_rounds": 2, "quorum": 1},
        "classification": {"outcome": {"endpoint": "edss-worsening"}, "clinical": ["age", "edss"], "model": model},
    }
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    return validate(StudyConfig, content, "study")


def expected_unread(study: StudyConfig) -> set[str]:
    return set(inapplicable(study)) - _BY_VALUE


@pytest.mark.slow
@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_what_a_feature_model_does_not_read_is_said(kind: str, records: Path, tmp_path: Path) -> None:
    more = {"penalty": "elastic-net"} if kind in ("logistic", "linear-svm") else {}
    preparation = {"selection": "k-best", "num_selected": 1, "reduction": "pca", "num_components": 1}
    study = study_of({"kind": kind, **more}, classification={"preparation": preparation})
    assert unread_of(study, sites_of_cohort(records, tmp_path, study), tmp_path) == expected_unread(study)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fold": {"number": 1, "of": 3}},
        {"outcome": {"column": "activity_1y"}},
        {"model": {"kind": "logistic", "penalty": "none"}},
        {"features": ["bpf"]},
    ],
    ids=lambda changes: ", ".join(changes) or "defaults",
)
def test_what_other_settings_switch_off_is_said(changes: dict[str, Any], records: Path, tmp_path: Path) -> None:
    study = study_of({"kind": "logistic"}, classification=changes)
    images = {f"inputs.{name}" for name in _OF_IMAGES if "features" in changes}  # its own
    assert unread_of(study, sites_of_cohort(records, tmp_path, study), tmp_path) == expected_unread(study) | images


def test_what_a_harmonization_reads_is_not_said(tmp_path: Path) -> None:
    make_records(tmp_path / "three", num_sites=3, cases_per_site=40)
    combat = {"method": "combat", "age_knots_years": [20, 70], "min_cases": 3}
    study = study_of({"kind": "lda"}, classification={"features": ["bpf"]}, harmonization=combat)
    unread = unread_of(study, sites_of_cohort(tmp_path / "three", tmp_path, study), tmp_path)
    assert unread == expected_unread(study) | {f"inputs.{name}" for name in _OF_IMAGES}
    assert not [key for key in unread if key.startswith("harmonization")]


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_a_share_acts_where_it_is_not_said_to_have_no_effect(kind: str) -> None:
    settings = make_settings({"kind": kind}, 3)
    sites = make_cases(1, (60, 30, 30), 3)
    state = first_state(settings, 0)
    for number in (1, 2):
        if is_finished(settings, state):
            break
        answers = answers_of(settings, state, sites, number)
        state, other = combine(settings, state, answers), combine(settings, state, answers, 0.4)
    is_same = all(np.array_equal(state[name], other[name]) for name in state)
    assert is_same == ("rounds.max_share" in inapplicable(study_of({"kind": kind})))


def test_without_a_penalty_its_strength_has_no_effect_nor_a_ratio_of_one_alone() -> None:
    def coefficients(**model: Any) -> NDArray[np.float64]:
        settings = make_settings({"kind": "logistic", **model}, 3)
        return play(settings, make_cases(1, (60, 30), 3))["coefficients"]

    weak, strong = ({"inverse_strength": value} for value in (1.0, 0.01))
    free = [coefficients(penalty="none", **strength) for strength in (weak, strong)]
    assert free[0] == pytest.approx(free[1], rel=1e-5)
    assert np.array_equal(coefficients(l1_ratio=0.1), coefficients(l1_ratio=0.9))
    assert coefficients(**weak) != pytest.approx(coefficients(**strong), rel=1e-2)


def test_each_line_names_the_key_its_value_and_why() -> None:
    study = study_of({"kind": "lda"}, rounds={"num_rounds": 50, "quorum": 1, "max_share": 0.5})
    assert unused_settings(study) == [
        "inputs.spacing_mm: 4.0 has no effect: the study reads no image: its inputs are clinical values",
        "network.channels: (4, 8) has no effect: lda trains no segmentation network",
        "training.steps_per_round: 2 has no effect: lda is not trained by such steps",
        "training.batch_size: 2 has no effect: lda is not trained by such steps",
        "training.patch_voxels: 16 has no effect: lda is not trained by such steps",
        "rounds.num_rounds: 50 has no effect: lda ends by itself after at most 1 round",
        "rounds.max_share: 0.5 has no effect: lda is learned from sums, which count each case once",
    ]
    assert unused_settings(StudyConfig(name="defaults")) == []
    travelled = StudyConfig.model_validate_json(study.model_dump_json())
    assert unused_settings(travelled) == unused_settings(study)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"preparation": {"selection": "rfe"}},
            "classification.preparation.selection: 'rfe' has no effect: num_selected, 20, keeps all 2 inputs",
        ),
        (
            {"preparation": {"selection": "rfe", "num_selected": 1, "reduction": "pca", "num_components": 3}},
            "classification.preparation.num_components: 3 has no effect: 1 are all that there are",
        ),
        (
            {"preparation": {"subject_scaling": "standard"}},
            "classification.preparation.subject_scaling: 'standard' has no effect: the model sees no feature of images",
        ),
        (
            {"features": ["bpf", "brain_volume_ml"], "preparation": {"group_by": "_"}},
            "classification.preparation.group_by: '_' has no effect: subject_scaling is none",
        ),
    ],
)
def test_what_would_be_replaced_in_silence_is_said(changes: dict[str, Any], line: str) -> None:
    lines = unused_settings(study_of({"kind": "lda"}, classification=changes))
    assert [one for one in lines if ".preparation." in one] == [line]


def test_a_share_does_not_act_where_all_sites_count_the_same() -> None:
    rounds = {"quorum": 5, "max_share": 0.5}
    line = "rounds.max_share: 0.5 has no effect: krum counts all sites the same"
    assert unused_settings(StudyConfig(name="a", rounds=rounds, strategy={"kind": "krum"})) == [line]
    assert unused_settings(StudyConfig(name="a", rounds=rounds)) == []


def test_a_model_of_first_visits_sees_one() -> None:
    model = {"kind": "resnext", "max_visits": 3}
    line = "classification.model.max_visits: 3 has no effect: with observations first, the model sees one visit"
    first = study_of(model, classification={"outcome": {"column": "label", "observations": "first"}})
    assert line in unused_settings(first)
    every = study_of(model)
    assert not any("max_visits" in one for one in unused_settings(every))
    assert [one.classification.most_visits for one in (first, every) if one.classification] == [1, 3]


def test_every_rule_speaks_of_settings_that_there_are() -> None:
    studies = [study_of({"kind": kind}) for kind in FEATURE_KINDS]
    studies += [study_of({"kind": kind}, harmonization={"method": "none"}) for kind in DEEP_KINDS]
    studies.append(study_of({"kind": "lda"}, classification={"features": ["bpf"]}, segmentation={"num_rounds": 2}))
    studies.append(StudyConfig(name="private", differential_privacy={"noise_multiplier": 1, "sampling_rate": 0.1}))
    keys = {key for study in studies for key in leaf_keys(study)}
    assert [
        pattern for rule in RULES for pattern in rule.keys if not any(fnmatchcase(key, pattern) for key in keys)
    ] == []


@pytest.mark.parametrize("value", [["random_forest"], ["knn"], [""]])
def test_a_site_refuses_kinds_of_model_that_there_are(value: list[str]) -> None:
    with pytest.raises(ValidationError, match=r"no such kind of model: .* are logistic, "):
        Policy(refuse_models=tuple(value))


@pytest.mark.slow
def test_every_setting_of_a_site_is_read_by_its_program() -> None:
    folders = [Path(__file__).parents[3] / side for side in ("client", "common")]
    trees = [ast.parse(path.read_text()) for folder in folders for path in folder.rglob("*.py")]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    keys = {key for model in (SiteConfig, Policy, KeepContent) for key in model.model_fields}
    assert keys - read == {"schema_version"}


def test_settings_of_a_site_that_do_not_apply(tmp_path: Path) -> None:
    site = SiteConfig(name="a", data=(tmp_path,), state=tmp_path, device="cpu", gpu_memory_fraction=0.5)
    more = site.model_copy(update={"policy": Policy(refuse_models=())})
    assert unused_by_site(site) == ["gpu_memory_fraction: 0.5 has no effect: on cpu there is no GPU"]
    assert unused_by_site(more)[1:] == [
        "policy.refuse_models: has no effect: `policy.tasks` names neither classification nor regression"
    ]
    assert unused_by_site(site.model_copy(update={"device": "auto"})) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEEP_KINDS)
def test_what_a_deep_model_does_not_read_is_said(kind: str, imaged: SiteConfig, tmp_path: Path) -> None:
    model = {"kind": kind, "width": 2, "slices": 8, "pixels": 16, "max_visits": 1}
    study = study_of(
        model, classification={"outcome": {"column": "label", "observations": "first"}, "clinical": ["age"]}
    )
    assert unread_of(study, (imaged,), tmp_path) == expected_unread(study)


def test_what_a_segmentation_does_not_read_is_said(imaged: SiteConfig, tmp_path: Path) -> None:
    study = study_of({"kind": "lda"}, task="lesion-segmentation", classification=None)
    assert unread_of(study, (imaged,), tmp_path) == expected_unread(study)

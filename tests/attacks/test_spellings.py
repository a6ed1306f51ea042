"""A coordinator that says a study in other words, or names one like another's stage, to be answered as if anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msfl_client.egress.gateway import check_agreed
from msfl_client.training.site_strategy import site_strategy
from msfl_common.config.stages import stage_name
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import first_state
from msfl_common.models.network import build_network, get_weights
from msfl_common.system.seeds import derive_seed
from tests.attacks.feature_sites import Site
from tests.feature_models import make_cases, make_settings

SETTINGS = make_settings({"kind": "logistic"}, 4)
START = first_state(SETTINGS, derive_seed(0, "weights"))
WRITTEN_OUT = [{"learning_rate": 1e-3}, {"weight_decay": 1e-2}, {"learning_rate": 1e-3, "weight_decay": 1e-2}]


def said(study: StudyConfig, **training: Any) -> StudyConfig:
    """The study as a request brings it, with these words in its section of training."""
    content = json.loads(study.model_dump_json())
    content["training"] |= training
    return parse_study(json.dumps(content))


def answer_as(site: Site, study: StudyConfig) -> None:
    """Let the site take a request of the study, which it was shown in other words."""
    check_agreed(site.study, study)
    site.learner._data.study = study  # type: ignore[misc]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (cases,) = make_cases(0, [60], 4).values()
    return Site(SETTINGS, cases, tmp_path)


@pytest.mark.parametrize("words", WRITTEN_OUT)
def test_defaults_that_are_written_out_count_no_answers_anew(site: Site, words: dict[str, float]) -> None:
    site.ask(START)
    (folder,) = (site.learner._data.site.state / "answers" / "attacked").iterdir()
    answer_as(site, said(site.study, **words))
    site.ask(START)  # again, and no other: counted once
    assert [*folder.parent.iterdir()] == [folder]
    assert site.learner._states.folder == folder
    assert len(site.learner._states.known) == 1


@pytest.mark.parametrize("zero", ["flip", "noise"])
def test_a_zero_below_zero_is_another_study(tiny_study: StudyConfig, zero: str) -> None:
    """-0.0 equals 0.0, and is written otherwise."""
    agreed = said(tiny_study, augmentation={zero: 0.0})
    check_agreed(agreed, said(agreed))
    with pytest.raises(RefusedError, match="training") as refused:
        check_agreed(agreed, said(agreed, augmentation={zero: -0.0}))
    assert refused.value.code is Code.WRONG_STUDY


def test_answers_that_were_written_down_otherwise_are_not_forgotten(site: Site) -> None:
    """As by an earlier version, whose settings had other names."""
    site.ask(START)
    (folder,) = (site.learner._data.site.state / "answers" / "attacked").iterdir()
    folder.rename(folder.with_name("states-0123456789abcdef"))
    (folder.parent / "final-train.json").write_text("{}")  # the register of a deployed site
    with pytest.raises(RefusedError, match=r"states-0123456789abcdef.*reset-answers") as refused:
        site.ask(START)
    assert refused.value.code is Code.ANSWERED
    assert not folder.exists()


def test_other_words_do_not_reset_what_a_strategy_keeps(tiny_study: StudyConfig, tmp_path: Path) -> None:
    first = get_weights(build_network(tiny_study))
    words: list[dict[str, float]] = [{}, *WRITTEN_OUT]
    assert len({site_strategy(tmp_path, said(tiny_study, **one), first).folder for one in words}) == 1


def test_a_stage_keeps_apart_from_a_study_that_is_named_like_it(tiny_study: StudyConfig, tmp_path: Path) -> None:
    """Names of stages are cut short, so those of two long names can be alike, too."""
    first, name = get_weights(build_network(tiny_study)), stage_name("tiny", "segmentation")
    settings = tiny_study.model_copy(update={"name": name})
    folders = {site_strategy(tmp_path, settings, first, whole).folder for whole in ("tiny", name)}
    assert {folder.parent.name for folder in folders} == {"tiny", name}

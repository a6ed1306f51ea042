"""A study with noise at a site: what its policy allows, what its ledger says, and an older record of what was spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.client.rounds.test_app import answer, request

from msfl_client.cli.forecast_view import raise_if_hopeless
from msfl_client.egress.ledger import newest_releases, read
from msfl_client.privacy.spent import SPENT_FILE
from msfl_client.rounds.forecast import forecast
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError
from msfl_common.messages.records import unpack_refusal, unpack_update
from msfl_common.models.network import build_network, get_weights
from msfl_common.privacy_accounting import epsilon_of, planned_epsilon, released_in_round


@pytest.fixture
def config(make_site: Callable[..., Any]) -> SiteConfig:
    site: SiteConfig = make_site(subjects=[f"sub-0{number}" for number in range(6)]).config(
        policy=Policy(min_patients=1)
    )
    return site


@pytest.fixture
def private(tiny_study: StudyConfig) -> StudyConfig:
    noise = DifferentialPrivacy(noise_multiplier=1, sampling_rate=0.5)
    return tiny_study.model_copy(update={"differential_privacy": noise})


@pytest.mark.slow
def test_an_answer_is_spent_once_and_the_ledger_says_how_much(config: SiteConfig, private: StudyConfig) -> None:
    like = get_weights(build_network(private))
    first, again = (unpack_update(answer(config, "train", request(private)), expected=like) for _ in range(2))
    assert all(np.array_equal(first.weights[name], again.weights[name]) for name in like)
    assert first.train_loss == 0
    one, two = read(config.state / "ledger.jsonl")
    assert one.epsilon == two.epsilon
    assert one.epsilon is not None
    assert (one.delta, one.releases, two.releases) == (1e-5, 1, 1)
    unpack_update(answer(config, "train", request(private, 2)), expected=like)
    assert newest_releases(config.state / "ledger.jsonl") == 2
    spent = config.state / SPENT_FILE
    record = json.loads(spent.read_bytes())
    record["releases"].pop()
    spent.write_text(json.dumps(record))  # as a backup brings it back
    refusal = unpack_refusal(answer(config, "train", request(private, 3)))
    assert refusal is not None
    assert refusal.code is Code.INTERNAL
    assert "replaced by an older one" in (config.state / "site.log").read_text()


@pytest.mark.slow
def test_a_study_beyond_the_policy_is_refused_and_foreseen(config: SiteConfig, private: StudyConfig) -> None:
    planned = planned_epsilon(private)
    assert planned is not None
    site = config.model_copy(update={"policy": Policy(min_patients=1, max_epsilon=0.9 * planned)})
    refusal = unpack_refusal(answer(site, "train", request(private)))
    assert refusal is not None
    assert refusal.code is Code.POLICY
    assert not (Path(site.state) / SPENT_FILE).exists()
    made = forecast(site, private, lambda *_: None)
    with pytest.raises(InputError, match=r"nothing would come of study tiny here: .*policy\.max_epsilon"):
        raise_if_hopeless("site.yaml", private, made)
    foreseen = made.refused("training")
    assert foreseen is not None
    assert "policy.max_epsilon" in foreseen.why
    assert forecast(config, private, lambda *_: None).refused("training") is None


@pytest.mark.slow
def test_patients_whose_folders_were_renamed_go_on_in_their_own_account(
    config: SiteConfig, private: StudyConfig
) -> None:
    answer(config, "train", request(private))
    (folder,) = config.data
    for path in sorted(folder.rglob("*sub-0*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.replace("sub-0", "sub-renamed")))
    second = private.model_copy(update={"name": "second"})
    like = get_weights(build_network(second))
    unpack_update(answer(config, "train", request(second)), expected=like)
    one, two = read(config.state / "ledger.jsonl")
    assert (one.epsilon, two.epsilon) == (
        epsilon_of([released_in_round(private)], private.differential_privacy.delta),  # type: ignore[union-attr]
        epsilon_of([released_in_round(private)] * 2, private.differential_privacy.delta),  # type: ignore[union-attr]
    )

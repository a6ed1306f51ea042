"""The value of a sum, kept so that it is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.client.secure_aggregation.members import NAMES, REQUEST, STUDY, Members, masked, members_at, site_at

from msfl_client.egress.budget_record import forget_budget
from msfl_client.secure_aggregation.kept_values import FOLDER, Facts, KeptValue, delete_values, keep_value, kept_value
from msfl_client.secure_aggregation.site_masks import answer_anew
from msfl_client.secure_aggregation.sum_answer import SumAnswer, expect_sum
from msfl_common.errors import Code, RefusedError
from msfl_common.harmonization import Moments
from msfl_common.messages.layouts import Layout, _MomentsLayout, update_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.coordinator import MaskedSum
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return members_at(tmp_path)


def value(ring: Ring, num_sites: int = 3, request: str = REQUEST) -> KeptValue:
    words = ring.encode(np.random.default_rng(0).normal(size=5), num_sites)
    facts = Facts(
        request=request,
        kind="masked_sums",
        bits=ring.bits,
        length=5,
        num_sites=num_sites,
        num_cases=9,
        num_patients=7,
    )
    return KeptValue(facts, words)


def place(members: Members) -> SumAnswer:
    return expect_sum(members["bern"], members.context(), REQUEST, "final-test")


@pytest.mark.parametrize("ring", [UPDATES, SUMS], ids=["updates", "sums"])
def test_a_value_is_read_as_it_was_kept(members: Members, ring: Ring) -> None:
    here, made = place(members), value(ring)
    here.claim(made, here.hide(made))
    kept = here.kept()
    assert kept is not None
    assert kept.facts == made.facts
    assert ring.pack(kept.words) == ring.pack(made.words)
    assert here.hide(kept).hidden.payload == here.hide(made).hidden.payload
    path = members["bern"].folder / FOLDER / "final-test"
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept_value(members["bern"].folder, "final-test", "cd" * 32) is None
    assert kept_value(members["bern"].folder, "final-validation", REQUEST) is None
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert here.kept() is None
    delete_values(members["bern"].folder)
    assert here.kept() is None


def test_a_value_for_a_sum_of_fewer_sites_is_made_anew(members: Members) -> None:
    """Its numbers could run over in a sum of more."""
    keep_value(members["bern"].folder, "final-test", value(SUMS, num_sites=2))
    assert place(members).kept() is None
    keep_value(members["bern"].folder, "final-test", value(SUMS, num_sites=4))
    assert place(members).kept() is not None


def test_a_budget_that_is_forgotten_takes_kept_values_along(members: Members) -> None:
    """Asked for again, they are made and counted anew."""
    here, made, site = place(members), value(SUMS), site_at(members.root, "bern")
    here.claim(made, here.hide(made))
    (site.state / "budget").mkdir(mode=0o700)
    assert here.kept() is not None
    forget_budget(site)
    assert here.kept() is None


BEFORE: Weights = {"layer.weight": np.zeros(3, np.float32)}
LAYOUT: Layout[ModelUpdate] = update_layout(STUDY, BEFORE)
MOVED = {"bern": 1.0, "graz": 2.0, "oslo": 5.0}


def ask_round(members: Members, number: int, asked: tuple[str, ...]) -> tuple[Context, MaskedSum]:
    """All of them give what they gave in every round, in other seconds."""
    context = members.context(f"{number:064x}", asked=asked)
    summed = MaskedSum(members.roster, context, LAYOUT.ring, LAYOUT.length)
    for name in asked:
        here = expect_sum(members[name], context, context.request, "final-train")
        update = ModelUpdate({"layer.weight": np.full(3, MOVED[name], np.float32)}, 10, 0.5, float(number))
        made = here.made("model_update", LAYOUT, update, 10, 9)
        hidden = here.hide(made)
        here.claim(made, hidden)
        summed.take(name, hidden.hidden)
    return context, summed


def open_sum(members: Members, summed: MaskedSum) -> ModelUpdate:
    shares = {name: members[name].open(summed.opening(name)) for name in summed.context.asked}
    return LAYOUT.decode(summed.open(shares).total)


def test_one_value_in_sums_of_other_sites_is_refused_whichever_round_asks(tmp_path: Path) -> None:
    """The sum of all, less that of all but one in the round after from the same model, is the last one's value."""
    members = members_at(tmp_path, masked(STUDY, min_sites=2))
    first = open_sum(members, ask_round(members, 1, NAMES)[1])
    assert first.weights["layer.weight"].tolist() == [np.float32(8 / 3)] * 3
    with pytest.raises(RefusedError, match="would differ by the value of whoever came or went") as error:
        ask_round(members, 2, NAMES[:2])
    assert error.value.code is Code.BAD_SUM
    again = open_sum(members, ask_round(members, 3, NAMES)[1])
    assert again.weights["layer.weight"].tolist() == first.weights["layer.weight"].tolist(), "with the same sites"
    _, dropped = ask_round(members, 4, NAMES)
    del dropped.heads["oslo"]
    with pytest.raises(RefusedError, match="would differ by the value"):
        members["bern"].open(dropped.opening("bern"))


def test_another_study_on_the_same_patients_does_not_take_a_site_out(tmp_path: Path) -> None:
    study = masked(STUDY, min_sites=2)
    open_sum(members_at(tmp_path, study), ask_round(members_at(tmp_path, study), 1, NAMES)[1])
    second = members_at(tmp_path, study.model_copy(update={"name": "second"}))
    with pytest.raises(RefusedError, match="would differ by the value of whoever came or went"):
        ask_round(second, 2, NAMES[:2])
    _, dropped = ask_round(second, 3, NAMES)
    del dropped.heads["oslo"]
    with pytest.raises(RefusedError, match="would differ by the value"):
        second["bern"].open(dropped.opening("bern"))
    assert open_sum(second, ask_round(second, 4, NAMES)[1]).weights["layer.weight"].tolist()
    (second["bern"].folder.parent / STUDY.name / "register.json").write_text("{}")  # of that study alone, set back
    with pytest.raises(RefusedError, match=f"reset-answers SITE.yaml {STUDY.name}"):
        ask_round(second, 5, NAMES)
    answer_anew(site_at(tmp_path, "bern"), STUDY.name)
    ask_round(second, 5, NAMES)


def ask_moments(members: Members, num_features: int, asked: tuple[str, ...]) -> None:
    """First sums of so many features and two covariates, of the same patients in every study."""
    layout = _MomentsLayout(2, num_features)
    context = members.context(f"{num_features:064x}", asked=asked)
    summed = MaskedSum(members.roster, context, layout.ring, layout.length)
    for name in asked:
        cross_QP = np.random.default_rng(NAMES.index(name)).normal(size=(2, 3))[:, :num_features]
        here = expect_sum(members[name], context, context.request, "final-moments")
        made = here.made("harmonization_sums", layout, Moments(10, 1, np.eye(2), cross_QP), 10, 9)
        hidden = here.hide(made)
        here.claim(made, hidden)
        summed.take(name, hidden.hidden)
    for name in asked:
        members[name].open(summed.opening(name))


def test_a_study_of_fewer_features_does_not_take_a_site_out_of_a_harmonization(tmp_path: Path) -> None:
    """The features that two studies share have the same sums in both."""
    study = masked(STUDY, min_sites=2)
    ask_moments(members_at(tmp_path, study), 3, NAMES)
    second = members_at(tmp_path, study.model_copy(update={"name": "second"}))
    with pytest.raises(RefusedError, match="would differ by the value of whoever came or went"):
        ask_moments(second, 2, NAMES[:2])
    ask_moments(second, 2, NAMES)

"""The roster of sums under masks: whose keys are in it, when it becomes another one, and who has to confirm it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.server.rounds.masking_sites import MaskingSite, Waits, grid_of_masking, make_sites
from tests.server.rounds.test_masked_sums import ask_once, expect_sum, masks_of, study_of

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, RunError
from msfl_common.messages.records import RoundTask
from msfl_server.rounds import exchange
from msfl_server.rounds.exchange import Presence
from msfl_server.rounds.mask_roster import CONFIRMING, ROSTER_FILE, Masks, open_masks, read_roster
from msfl_server.rounds.roster import Roster
from msfl_server.rounds.sum_store import FOLDER


def prepared(masks: Masks, study: StudyConfig, may_change: bool = True) -> list[tuple[str, str]]:
    """Who has not confirmed the roster, and why."""
    return [(one.site, one.code) for one in masks.prepare(RoundTask(study, 1), may_change)[1]]


def digest(out: Path) -> str:
    roster = read_roster(out)
    assert roster is not None
    return roster.digest


def come_and_go(masks: Masks, sites: Sequence[MaskingSite], monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid as a deployed one, on which refused requests can be repeated."""
    here = {node: Presence(site.name, "since") for node, site in enumerate(sites, start=1)}
    monkeypatch.setattr(masks.grid, "presence", lambda: here, raising=False)
    for name, value in (("PRESENCE_EVERY_S", 0.01), ("AGAIN_S", (0.01, 0.02)), ("POLL_S", (0.005, 0.01))):
        monkeypatch.setattr(exchange, name, value)


def test_it_stays_the_same_over_restarts(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of()
    prepared(masks_of(sites, tmp_path, study), study)
    first = digest(tmp_path)
    prepared(masks_of(sites, tmp_path, study), study)
    assert digest(tmp_path) == first
    assert {site.roster.digest for site in sites if site.roster} == {first}


def test_a_site_that_lost_its_key_makes_another_one(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of()
    masks = masks_of(sites, tmp_path, study)
    expect_sum(ask_once(masks, study), sites)
    first, sites[1].mask_key = digest(tmp_path), X25519PrivateKey.generate()
    assert digest(tmp_path) == first
    prepared(masks_of(sites, tmp_path, study), study, may_change=False)
    assert digest(tmp_path) == first
    masks.forget({"site-01"})  # it has refused a value, as it has no key
    expect_sum(ask_once(masks, study, number=2), sites)
    assert digest(tmp_path) != first


def test_a_site_that_comes_late_makes_another_one(tmp_path: Path) -> None:
    sites, study = make_sites(4), study_of()
    masks = masks_of(sites[:3], tmp_path, study)
    prepared(masks, study)
    first, masks = digest(tmp_path), masks_of(sites, tmp_path, study)
    expect_sum(ask_once(masks, study), sites)
    assert digest(tmp_path) != first
    second, masks = digest(tmp_path), masks_of(sites[1:], tmp_path, study)
    prepared(masks, study)
    assert digest(tmp_path) == second  # who is away keeps its place


def test_keys_of_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites, study = make_sites(6), study_of()
    masks = masks_of(sites, tmp_path, study)
    prepared(masks, study)
    registered = {entry.site: entry.site_key for entry in masks.roster.sites} if masks.roster else {}
    (tmp_path / ROSTER_FILE).unlink()
    sites[0].site_key = sites[1].site_key
    masks = masks_of(sites, tmp_path, study)
    monkeypatch.setattr(masks.grid, "registered_key", lambda site: f"{registered[site]} remark", raising=False)
    assert prepared(masks, study) == [("site-00", "BAD_KEY")]
    (tmp_path / ROSTER_FILE).unlink()
    sites[0].mask_key, sites[2].study = sites[1].mask_key, "another"
    refused = sorted(prepared(masks_of(sites, tmp_path, study), study))
    assert refused == [("site-00", "BAD_KEY"), ("site-01", "BAD_KEY"), ("site-02", "BAD_KEY")]
    assert read_roster(tmp_path).names == ("site-03", "site-04", "site-05")  # type: ignore[union-attr]


def test_people_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites, study = make_sites(3), study_of()
    masks = masks_of(sites, tmp_path, study)
    sites[2].confirms = False

    def on_wait(number: int, what: str, names: list[str], left_s: float) -> None:
        if what == CONFIRMING and sites[2].asked.count("query.roster") == 3:
            assert (number, names) == (1, ["site-02"])
            assert left_s > 0
            sites[2].confirms = True

    monkeypatch.setattr(masks.listener, "on_wait", on_wait)
    come_and_go(masks, sites, monkeypatch)
    expect_sum(ask_once(masks, study), sites)
    assert sites[0].asked.count("query.roster") == 1


def test_people_are_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites, study = make_sites(3), study_of()
    study = study.model_copy(update={"rounds": study.rounds.model_copy(update={"deadline_s": 0.3})})
    masks = masks_of(sites, tmp_path, study)
    sites[2].confirms = False
    come_and_go(masks, sites, monkeypatch)
    assert prepared(masks, study) == [("site-02", "ROSTER_UNCONFIRMED")]
    times = sites[2].asked.count("query.roster")
    summed = ask_once(masks, study)
    expect_sum(summed, sites[:2])
    assert [(one.site, one.code) for one in summed.failures] == [("site-02", "ROSTER_UNCONFIRMED")]
    assert sites[2].asked.count("query.roster") == times + 1
    assert "train" not in sites[2].asked


@pytest.mark.parametrize(
    ("num_sites", "study", "error", "why"),
    [
        (2, study_of(), RunError, "2 sites have given their key, at least 3 are needed"),
        (3, study_of(min_sites=4), RunError, "at least 4 are needed"),
        (5, study_of(threshold=2), InputError, r"secure_aggregation\.threshold: 2 of 5 sites opens a sum; it takes 3"),
    ],
)
def test_what_cannot_hold_is_refused(
    tmp_path: Path, num_sites: int, study: StudyConfig, error: type[Exception], why: str
) -> None:
    sites = make_sites(num_sites)
    with pytest.raises(error, match=why):
        prepared(masks_of(sites, tmp_path, study), study)
    assert not (tmp_path / ROSTER_FILE).exists()


def test_a_changed_roster_is_named(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of()
    prepared(masks_of(sites, tmp_path, study), study)
    text = (tmp_path / ROSTER_FILE).read_text().replace("site-01", "site-09")
    (tmp_path / ROSTER_FILE).write_text(text)
    with pytest.raises(InputError, match=r"roster\.json: damaged"):
        masks_of(sites, tmp_path, study)


def test_all_stages_have_the_same(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of()
    out = tmp_path / "segmentation"
    nodes = Roster(names={node: site.name for node, site in enumerate(sites, start=1)})
    masks = open_masks(grid_of_masking(sites), study, out, "segmentation", nodes, Waits())
    assert masks is not None
    expect_sum(ask_once(masks, study), sites)
    first = digest(tmp_path)
    assert [path.name for path in out.iterdir()] == [FOLDER]
    expect_sum(ask_once(masks_of(sites, tmp_path, study), study, number=2), sites)
    assert digest(tmp_path) == first
    assert open_masks(grid_of_masking(sites), StudyConfig(name="plain"), out, "final", nodes, Waits()) is None


def test_all_sites_are_waited_for_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And as long as a round waits, not only as long as for one that was there before."""
    sites, study = make_sites(3), study_of()
    rounds = study.rounds.model_copy(update={"patience_s": 0.01, "deadline_s": 5})
    monkeypatch.setattr(exchange, "POLL_S", (0.005, 0.01))
    grid, listener = grid_of_masking(sites), Waits()
    here = {node: Presence(site.name, "since") for node, site in enumerate(sites[:2], start=1)}

    def presence() -> dict[int, Presence]:
        if len(listener.waited) > 4:
            here[3] = Presence("site-02", "since")
        return here

    monkeypatch.setattr(grid, "presence", presence, raising=False)
    nodes = Roster(expected=tuple(site.name for site in sites))
    open_masks(grid, study.model_copy(update={"rounds": rounds}), tmp_path, "final", nodes, listener)
    assert set(here) == {1, 2, 3}
    assert ("coming online", ["site-02"]) in listener.waited

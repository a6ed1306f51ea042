"""Whole studies with sums under masks, among real sites in this process: the same bits as in the open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from tests.server.rounds.test_classification import patients, play, study_of
from tests.server.rounds.test_loop import Killed, Recorder, equal, final_weights, sites, start

from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.messages.layouts import POOLED
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.results.received import tally
from msfl_server.rounds.checkpoint import read_state
from msfl_server.rounds.loop import run_rounds
from msfl_server.rounds.sum_store import FOLDER, SumFolder

__all__ = ["patients", "sites"]


def under_masks(study: StudyConfig, min_sites: int = 3) -> StudyConfig:
    settings = SecureAggregation(method="masks", min_sites=min_sites)
    return study.model_copy(update={"secure_aggregation": settings})


def grid_of(
    sites: list[SiteConfig],
    tamper: Callable[[int, Message, Message], Message] = lambda _, __, reply: reply,
) -> Grid:
    """The real site app of a simulation; `tamper` may change what node `i` (from 1) answers to a request."""
    open_context.cache_clear()
    app = build_app(lambda context: sites[int(context.node_config["partition-id"])], is_simulated=True)

    class Tampered(ClientApp):
        def __call__(self, message: Message, context: object) -> Message:
            return tamper(message.metadata.dst_node_id, message, app(message, context))

    return InProcessGrid(Tampered(), len(sites))


def trainings(out: Path) -> Mapping[str, int]:
    """How often each site has sent an update under masks."""
    return {site: kinds["masked_update"].messages for site, kinds in tally(out).items() if "masked_update" in kinds}


@pytest.mark.slow
def test_a_segmentation_has_the_same_bits_though_it_is_killed_and_a_share_is_false(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_rounds(grid_of(sites), tiny_study, start(tiny_study), tmp_path / "plain", Recorder())
    study, out = under_masks(tiny_study), tmp_path / "masked"

    def dies(folder: SumFolder, *given: object) -> None:
        fix(folder, *given)  # type: ignore[arg-type]
        if len(list((out / "checkpoints").glob("round_*"))) == 1:
            raise Killed

    fix = SumFolder.fix
    monkeypatch.setattr(SumFolder, "fix", dies)
    with pytest.raises(Killed):
        run_rounds(grid_of(sites), study, start(study), out, Recorder())
    monkeypatch.setattr(SumFolder, "fix", fix)

    def falsify(node: int, message: Message, reply: Message) -> Message:
        if node == 2 and message.metadata.message_type == "query.opening":
            record = reply.content.config_records["shares"]
            record["own"] = bytes(len(record["own"]))  # type: ignore[arg-type]
        return reply

    recorder = Recorder()
    run_rounds(grid_of(sites, falsify), study, start(study), out, recorder)
    assert equal(final_weights(out), final_weights(tmp_path / "plain"))
    assert recorder.states[0].round == 1
    state = recorder.states[-1]
    names = {"site-a", "site-b", "site-c"}
    assert all(set(record.sites_ok) == names for record in state.history)
    assert {(one.site, one.code) for one in state.history[-1].sites_failed} == {("site-b", "BAD_SHARES")}
    assert trainings(out) == dict.fromkeys(names, 3)
    assert not (out / FOLDER).exists()
    assert set(state.validation) == {POOLED}
    plain = read_state(tmp_path / "plain")
    assert state.validation[POOLED].num_cases == sum(one.num_cases for one in plain.validation.values())
    assert state.history[-1].metrics["dsc"] == pytest.approx(plain.history[-1].metrics["dsc"])


@pytest.mark.slow
@pytest.mark.parametrize("model", [{"kind": "logistic"}, {"kind": "mlp", "hidden": [4]}])
def test_an_outcome_has_the_same_bits(patients: Path, tmp_path: Path, model: dict[str, object]) -> None:
    study = study_of(**model)
    rounds = study.rounds.model_copy(update={"num_rounds": 3})
    validation = study.validation.model_copy(update={"every_rounds": 3})
    study = study.model_copy(update={"rounds": rounds, "validation": validation})
    plain = play(study, patients, tmp_path / "plain").states[-1]
    masked = play(under_masks(study), patients, tmp_path / "masked").states[-1]
    assert equal(final_weights(tmp_path / "masked"), final_weights(tmp_path / "plain"))
    assert masked.threshold == plain.threshold
    assert set(masked.test) == {POOLED}
    assert masked.test[POOLED].num_cases == sum(one.num_cases for one in plain.test.values())
    assert np.isclose(masked.history[-1].metrics["auroc"], plain.history[-1].metrics["auroc"])

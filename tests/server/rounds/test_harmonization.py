"""Harmonization among real sites in this process: equal to pooled data, whoever is lost, refuses or comes late."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from neuroHarmonize import harmonizationLearn
from tests.conftest import BidsSite
from tests.server.rounds.test_loop import Killed, Recorder

from msfl_client.data.bids import Case
from msfl_client.egress.ledger import read, verify
from msfl_client.features.table import FeatureRow, FeatureTable, read_features_table
from msfl_client.harmonization.site import training_rows
from msfl_client.rounds import harmonization_step
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import InputError, RunError
from msfl_common.harmonization import Reference
from msfl_common.models.model_folder import load_model, read_reference
from msfl_common.models.network import build_network, get_weights
from msfl_common.system.files import private_folder
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.loop import run_rounds

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

NAMES = tuple(FEATURES)[:5]
ALL = ("model_update", "validation_metrics", "harmonization_sums", "node_facts")


def random_features(cases: Sequence[Case], *_: object) -> tuple[list[FeatureRow], dict[str, str]]:
    """Figures of the case's name in place of an hour of images; what the protocol does with them is real."""
    rows = []
    for case in cases:
        rng = np.random.default_rng(crc32(f"{next(iter(case.images.values()))}".encode()))
        shift = crc32((case.scanner or "").encode()) % 7
        features = {name: float(rng.normal(10 + shift, 1 + shift / 5)) for name in NAMES}
        rows.append(FeatureRow(case.subject, case.visit_id, case.scanner, case.dataset, features))
    return rows, {}


@pytest.fixture(autouse=True)
def _random_features(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(harmonization_step, "features_of", random_features)
    yield
    open_context.cache_clear()


@pytest.fixture
def study(tiny_study: StudyConfig) -> StudyConfig:
    rounds = tiny_study.rounds.model_copy(update={"num_rounds": 1})
    settings = Harmonization(method="combat", features=NAMES, min_cases=3)
    return tiny_study.model_copy(update={"harmonization": settings, "rounds": rounds})


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory, tiny: StudyConfig) -> list[SiteConfig]:
    """Four sites of 9 patients, whose images are prepared; the first has two scanners, one with too few cases."""
    base, made = tmp_path_factory.mktemp("hospitals"), []
    for letter in "abcd":
        bids = BidsSite(base / f"site-{letter}")
        bids.root.mkdir()
        rng = np.random.default_rng(ord(letter))
        lines = ["participant_id\tage\tsex\tscanner"]
        for number in range(9):
            bids.add(name := f"sub-{letter}{number}")
            scanner = "old" if letter == "a" and number < 2 else "new"
            lines.append(f"{name}\t{rng.uniform(20, 60):.1f}\t{'FM'[number % 2]}\t{scanner}")
        (bids.root / "participants.tsv").write_text("\n".join(lines) + "\n")
        policy, state = Policy(min_patients=1, allow=ALL), base / "states" / letter
        made.append(SiteConfig(name=f"site-{letter}", data=(bids.root,), state=state, policy=policy))
        open_context(made[-1], tiny, lambda *_: None)
    return made


@pytest.fixture
def sites(hospitals: list[SiteConfig], tmp_path: Path) -> list[SiteConfig]:
    """The four, each with a state of its own, which holds the prepared images and nothing else."""
    made = []
    for site in hospitals:
        state = tmp_path / "states" / site.name
        private_folder(state)
        shutil.copytree(site.state / "cache", state / "cache")
        made.append(site.model_copy(update={"state": state}))
    return made


@pytest.fixture
def participants(sites: list[SiteConfig]) -> Iterator[list[Path]]:
    """The sites' tables of patients, for a test to change."""
    before = {path: path.read_text() for site in sites for path in [site.data[0] / "participants.tsv"]}
    yield list(before)
    for path, text in before.items():
        path.write_text(text)


def grid_of(
    sites: list[SiteConfig],
    tamper: Callable[[int, Message, Message], Message] | None = None,
    cache_answers: bool = False,
) -> Grid:
    """The real site app; `tamper` may change what node `i` (from 1) answers to a request."""
    open_context.cache_clear()
    app = build_app(lambda context: sites[int(context.node_config["partition-id"])], cache_answers=cache_answers)

    class Tampered(ClientApp):
        def __call__(self, message: Message, context: object) -> Message:
            reply = app(message, context)
            return tamper(message.metadata.dst_node_id, message, reply) if tamper else reply

    return InProcessGrid(Tampered(), len(sites))


def run(grid: Grid, study: StudyConfig, out: Path) -> Reference:
    run_rounds(grid, study, get_weights(build_network(study)), out, Recorder())
    return read_reference(out / "harmonization.json")


class Stops(Recorder):
    """Ends a run before its first round is trained: each site has the reference by then."""

    def on_wait(self, number: int, what: str, names: list[str], left_s: float) -> None:
        if what == "training":
            raise Killed


def agree(grid: Grid, study: StudyConfig, out: Path) -> Reference:
    """A run as far as its reference is in the sites' hands."""
    with pytest.raises(Killed):
        run_rounds(grid, study, get_weights(build_network(study)), out, Stops())
    return read_reference(out / "harmonization.json")


def harmonized(site: SiteConfig) -> FeatureTable:
    return read_features_table(site.state / "harmonization" / "features.tsv")


def training_keys(site: SiteConfig, study: StudyConfig) -> set[str]:
    context = open_context(site, study, lambda *_: None)
    return {case.key for case in context.training}


def pooled(sites: list[SiteConfig], study: StudyConfig) -> dict[tuple[str, str], np.ndarray]:
    """neuroHarmonize on the union of the training rows: (site, case) to features."""
    keys, rows, covariates = [], [], []
    for site in sites:
        context = open_context(site, study, lambda *_: None)
        found, chosen = training_rows(
            context.training, site, study.harmonization, FeatureTable(tuple(random_features(context.cases)[0]))
        )
        keys += [(site.name, case.key) for case in chosen.cases]
        rows.append(found.features_NP)
        frame = pd.DataFrame(found.covariates_NQ, columns=["age", "sex"])
        frame.insert(0, "SITE", [f"{site.name} {scanner}" for scanner in found.scanners])
        covariates.append(frame)
    _, values = harmonizationLearn(np.concatenate(rows), pd.concat(covariates, ignore_index=True))
    return dict(zip(keys, np.asarray(values), strict=True))


def greatest_difference(sites: list[SiteConfig], study: StudyConfig) -> float:
    theirs = pooled(sites, study)
    ours = {(site.name, row.key): row.features for site in sites for row in harmonized(site).rows}
    assert set(theirs) <= set(ours)
    return max(abs(ours[key][name] - theirs[key][number]) for key in theirs for number, name in enumerate(NAMES))


@pytest.mark.slow
def test_every_site_harmonizes_as_if_data_were_pooled(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    reference = run(grid_of(sites), study, tmp_path / "out")
    assert greatest_difference(sites, study) <= 1e-8
    assert reference.num_sites == 4
    assert reference.num_cases == sum(len(training_keys(site, study)) for site in sites) - len(
        training_keys(sites[0], study) & {"sub-a0", "sub-a1"}
    )
    card, _ = load_model(tmp_path / "out" / "model")
    assert card.harmonization == reference.version
    assert read_reference(tmp_path / "out" / "model" / "harmonization.json") == reference


@pytest.mark.slow
def test_sums_pass_the_ledger_and_nothing_of_a_case_leaves(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    sent: list[Message] = []
    run(grid_of(sites, lambda _, __, reply: sent.append(reply) or reply), study, tmp_path / "out")  # type: ignore[func-returns-value]
    ledger = sites[1].state / "ledger.jsonl"
    assert verify(ledger) == 6
    lines = [line for line in read(ledger) if line.kind == "harmonization_sums"]
    assert [line.arrays for line in lines] == [
        {"covariance": [2, 2], "cross": [2, 5]},
        {"intercepts": [5], "squares": [5]},
    ]
    assert {line.num_cases for line in lines} == {len(training_keys(sites[1], study))}
    told = str([message.content for message in sent])
    assert "sub-" not in told
    assert "new" not in json.dumps([list(message.content.config_records.values()) for message in sent], default=str)
    sums = [
        reply.content for reply in sent if "arrays" in reply.content and len(reply.content.array_records["arrays"]) == 2
    ]
    row = harmonized(sites[1]).rows[0].features
    flat = np.concatenate(
        [array.numpy().ravel() for content in sums for array in content.array_records["arrays"].values()]
    )
    assert not np.isin(np.round([row[name] for name in NAMES], 9), np.round(flat, 9)).any()


@pytest.mark.slow
def test_the_slopes_stay_where_a_site_is_lost_between_the_sums(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    asked: list[Message] = []

    def lose(node: int, request: Message, reply: Message) -> Message:
        asked.append(request)
        if node == 4 and request.metadata.message_type == "query.residuals":
            reply.content.array_records["arrays"]["squares"] = Array(np.full(5, np.nan))
        return reply

    reference = agree(grid_of(sites, lose), study, tmp_path / "out")
    assert (reference.num_sites, reference.num_scanners) == (3, 3)
    late = harmonized(sites[3])  # it takes the reference all the same, and fits itself
    assert late.harmonized_to == reference.version
    assert len(late.rows) == 9
    assert [request.metadata.message_type for request in asked].count("query.residuals") == 4  # no second slopes
    assert np.array_equal(reference.beta, agree(grid_of(sites), study, tmp_path / "all").beta)


@pytest.mark.slow
def test_a_run_killed_between_the_sums_asks_for_no_second_slopes(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    """With a site fewer afterwards the slopes would be others, and those that have answered would refuse them."""

    class Dies(Recorder):
        def on_wait(self, number: int, what: str, names: list[str], left_s: float) -> None:
            if what == "harmonization (residuals)":
                raise Killed

    first, out = get_weights(build_network(study)), tmp_path / "out"
    with pytest.raises(Killed):
        run_rounds(grid_of(sites, cache_answers=True), study, first, out, Dies())
    recorder = Recorder()
    run_rounds(grid_of(sites[:3], cache_answers=True), study, first, out, recorder)
    assert not recorder.states[-1].history[0].sites_failed
    assert read_reference(out / "harmonization.json").num_sites == 3
    assert not list(out.glob(".harm*"))


@pytest.mark.slow
def test_a_site_whose_policy_refuses_sums_uses_the_others_reference(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    policy = Policy(min_patients=1, allow=("model_update", "validation_metrics", "node_facts"))
    shy = [*sites[:3], sites[3].model_copy(update={"policy": policy})]
    reference = agree(grid_of(shy), study, tmp_path / "out")
    assert reference.num_sites == 3
    assert greatest_difference(sites[:3], study) <= 1e-8
    assert harmonized(sites[3]).harmonized_to == reference.version
    assert "harmonization_sums" not in (sites[3].state / "ledger.jsonl").read_text()


@pytest.mark.slow
def test_a_site_whose_cases_changed_between_the_sums_is_left_out_of_the_second(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    def grow(node: int, request: Message, reply: Message) -> Message:
        if node == 2 and request.metadata.message_type == "query.residuals":
            numbers = reply.content.metric_records["metrics"]
            numbers["num-examples"] = int(str(numbers["num-examples"])) + 1
        return reply

    assert agree(grid_of(sites, grow), study, tmp_path / "out").num_sites == 3


@pytest.mark.slow
def test_sums_of_fewer_patients_than_the_policy_demands_stay(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    careful = [*sites[:3], sites[3].model_copy(update={"policy": Policy(min_patients=8, allow=ALL)})]
    assert agree(grid_of(careful), study, tmp_path / "out").num_sites == 3
    assert "harmonization_sums" not in (sites[3].state / "ledger.jsonl").read_text()


@pytest.mark.slow
def test_who_comes_late_changes_nobody(sites: list[SiteConfig], study: StudyConfig, tmp_path: Path) -> None:
    first = run(grid_of(sites[:3]), study, tmp_path / "out")
    before = [(site.state / "harmonization" / "features.tsv").read_bytes() for site in sites[:3]]
    longer = study.model_copy(update={"rounds": study.rounds.model_copy(update={"num_rounds": 2})})
    assert run(grid_of(sites), longer, tmp_path / "out") == first
    assert [(site.state / "harmonization" / "features.tsv").read_bytes() for site in sites[:3]] == before
    assert harmonized(sites[3]).harmonized_to == first.version


def test_two_sites_are_too_few(sites: list[SiteConfig], study: StudyConfig, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="harmonization: 2 sites gave their sums, at least 3 are needed"):
        run(grid_of(sites[:2]), study, tmp_path / "out")
    assert not (tmp_path / "out" / "harmonization.json").exists()


@pytest.mark.slow
def test_a_site_with_too_few_cases_is_named(sites: list[SiteConfig], study: StudyConfig, tmp_path: Path) -> None:
    settings = study.harmonization.model_copy(update={"min_cases": 7})
    strict = study.model_copy(update={"harmonization": settings})
    with pytest.raises(RunError, match="site-a: TOO_FEW_PATIENTS"):
        run(grid_of(sites), strict, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("column", ["age", "sex"])
def test_a_covariate_of_one_value_is_named(
    sites: list[SiteConfig], participants: list[Path], study: StudyConfig, tmp_path: Path, column: str
) -> None:
    value = {"age": "40", "sex": "F"}[column]
    for path in participants:
        table = pd.read_csv(path, sep="\t", dtype=str)
        table[column] = value
        table.to_csv(path, sep="\t", index=False)
    with pytest.raises(RunError, match=f"harmonization: {column} has one value at each scanner"):
        run(grid_of(sites), study, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arrays",
    [
        {"covariance": np.eye(2), "cross": np.full((2, 5), np.inf)},
        {"covariance": np.eye(3), "cross": np.ones((2, 5))},
        {"covariance": -np.eye(2), "cross": np.ones((2, 5))},
        {"covariance": np.eye(2, dtype=np.float32), "cross": np.ones((2, 5))},
        {"covariance": np.eye(2), "cross": np.ones((2, 5)), "rows": np.ones((9, 5))},
    ],
)
def test_sums_that_must_not_be_added(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    def forge(node: int, request: Message, reply: Message) -> Message:
        if node == 2 and request.metadata.message_type == "query.moments":
            reply.content["arrays"] = ArrayRecord({name: Array(value) for name, value in arrays.items()})
        return reply

    reference = agree(grid_of(sites, forge), study, tmp_path / "out")
    assert reference.num_sites == 3


@pytest.mark.slow
def test_a_reference_made_with_other_settings_is_not_used(
    sites: list[SiteConfig], study: StudyConfig, tmp_path: Path
) -> None:
    agree(grid_of(sites), study, tmp_path / "out")
    settings = study.harmonization.model_copy(update={"covariates": ("age",)})
    with pytest.raises(InputError, match="made with other settings of `harmonization`"):
        agree(grid_of(sites), study.model_copy(update={"harmonization": settings}), tmp_path / "out")

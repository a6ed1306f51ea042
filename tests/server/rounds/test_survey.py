"""A survey asked in simulation, of deployed sites and under masks; refused, repeated, and counted in the budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.attacks.deployed_site import Deployed, people, study_of, write_people
from tests.client.secure_aggregation.members import REQUEST, members_at
from tests.conftest import tiny_settings
from tests.extending.test_message_kind import deployed
from tests.server.rounds.test_loop import Recorder

from msfl_client.disclosure.budget import read_budget
from msfl_client.egress.gateway import Gateway
from msfl_client.egress.ledger import LEDGER_FILE, read
from msfl_client.rounds.app import build_app
from msfl_client.rounds.survey_step import site_survey
from msfl_client.secure_aggregation.sum_answer import expect_sum
from msfl_common.config.message_kinds import allowed_by_default
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.config.survey_tables import EDSS, TABLES, bin_of
from msfl_common.errors import RunError
from msfl_common.feature_models import first_state
from msfl_common.messages.figures import Figures, unpack_figures
from msfl_common.messages.records import RoundTask, pack_task
from msfl_common.messages.survey_layout import SurveyLayout
from msfl_common.secure_aggregation.layout import sum_of
from msfl_server.report.survey import notes_of, write_page
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.results.survey import Survey
from msfl_server.rounds.exchange import Question
from msfl_server.rounds.exchange import ask as put
from msfl_server.rounds.survey import take_survey

FLOOR = 2


@pytest.fixture
def make(make_site: Callable[..., Any]) -> Callable[..., SiteConfig]:
    """A site of so many patients; the first has T1w alone, ages rise by ten years from 25, EDSS is known of all."""

    def made(number: int = 7, *, allows: bool = True, name: str | None = None) -> SiteConfig:
        site = make_site(subjects=[f"sub-{one}" for one in range(number)], **({"name": name} if name else {}))
        (site.root / "sub-0" / "anat" / "sub-0_FLAIR.nii.gz").unlink()
        rows = [f"sub-{one}\t{25 + 10 * (one // 2)}\tF\t{one % 4}" for one in range(number)]
        (site.root / "participants.tsv").write_text("\n".join(["participant_id\tage\tsex\tedss", *rows]) + "\n")
        allow = (*allowed_by_default(), *(["survey"] if allows else []))
        return site.config(policy=Policy(min_patients=FLOOR, allow=allow))  # type: ignore[no-any-return]

    return made


def ask(site: SiteConfig, out: Path, **changes: Any) -> Survey:
    study = tiny_settings().model_copy(update=changes)
    out.mkdir(exist_ok=True)
    return take_survey(deployed(site, study), {1: "here"}, study, out, Recorder())


@pytest.mark.parametrize("is_deployed", [False, True], ids=["simulated", "deployed"])
def test_counts_are_rounded_down_and_written_down(
    make: Callable[..., SiteConfig], tmp_path: Path, is_deployed: bool
) -> None:
    site, study = make(), tiny_settings()
    grid = deployed(site, study) if is_deployed else InProcessGrid(build_app(lambda _: site), 1)
    found = take_survey(grid, {1: "here"}, study, tmp_path, Recorder()).per_site["here"]
    assert found["patients"]["all"] == 6  # of 7
    assert (found["contrasts"]["T1w"], found["contrasts"]["T1w+FLAIR"], found["contrasts"]["T2w"]) == (6, 6, 0)
    assert list(found["age"].values()) == [0, 2, 2, 2, 0, 0, 0]
    assert list(found["edss"].values()) == [4, 2, 0, 0]  # 4 and 3
    assert [sum(found[name].values()) for name in ("voxel", "slices", "extent")] == [6, 6, 6]
    assert max(found["lesion_intensity"].values()) > 0  # of 6: the first has no FLAIR that its mask was drawn on
    (line,) = read(site.state / LEDGER_FILE)
    assert (line.kind, line.num_cases, line.min_patients) == ("survey", 6, 2)
    assert (site.state / "survey" / "told.encrypted").exists() == is_deployed


def test_a_site_refuses_where_its_policy_does_not_name_it(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no site answered the survey; here: POLICY"):
        ask(make(allows=False), tmp_path / "out")


def test_too_few_patients_are_not_told_of(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="here: TOO_FEW_PATIENTS"):
        ask(make(3), tmp_path / "out", min_patients=4)


def test_another_study_with_other_criteria_gets_the_same_numbers(
    make: Callable[..., SiteConfig], tmp_path: Path
) -> None:
    """Contrasts, labels and floors of the study choose nothing; a larger floor only withholds more."""
    site = make()
    first = ask(site, tmp_path / "one")
    other_inputs = tiny_settings().inputs.model_copy(update={"contrasts": ("FLAIR",)})
    assert ask(site, tmp_path / "two", name="two", inputs=other_inputs).together == first.together
    larger = ask(site, tmp_path / "three", name="three", min_patients=3).together
    assert all(value in (0, first.together[name][cell]) for name, of in larger.items() for cell, value in of.items())
    assert larger["age"] == dict.fromkeys(larger["age"], 0)


def test_a_study_that_changed_since_is_surveyed_again(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    """Counts are what a study is planned with: they answer the same question whatever became of its settings."""
    site = make()
    first = ask(site, tmp_path / "one")
    inputs = tiny_settings().inputs.model_copy(update={"contrasts": ("FLAIR",)})
    assert ask(site, tmp_path / "one", inputs=inputs).together == first.together


def test_a_patient_who_came_since_is_in_no_difference(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    site = make()
    first = ask(site, tmp_path / "one")
    table = site.data[0] / "participants.tsv"
    table.write_text(table.read_text().replace("sub-6\t55\tF\t2", "sub-6\t45\tF\t9"))  # from 3 and 1 to others
    again = ask(site, tmp_path / "two", name="two")
    assert again.together == first.together
    assert sum(len(one.answers) for one in read_budget(site.state).given) == 1  # told again, it costs nothing


def test_new_numbers_count_in_the_budget(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    site = make()
    site = site.model_copy(update={"policy": site.policy.model_copy(update={"max_evaluations": 1})})
    ask(site, tmp_path / "one")
    table = site.data[0] / "participants.tsv"
    table.write_text(table.read_text().replace("\t25\t", "\t65\t").replace("\t35\t", "\t65\t"))
    with pytest.raises(RunError, match="here: BUDGET_SPENT"):
        ask(site, tmp_path / "two", name="two")


def test_a_study_of_the_same_patients_goes_on_after_a_survey(tmp_path: Path) -> None:
    cases, policy = people(3, 40), {"allow": (*allowed_by_default(), "survey")}
    write_people(tmp_path / "bids", cases)
    for who in cases.patients:
        image = tmp_path / "bids" / f"sub-{who}" / "anat" / f"sub-{who}_T1w.nii.gz"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    here = Deployed(tmp_path / "bids", study_of(kind="lda"), policy)
    take_survey(deployed(here.site, here.study), {1: "here"}, here.study, tmp_path, Recorder())
    here.ask(first_state(here.settings, 0))
    assert [about.kind for about in read_budget(here.site.state).sets.values()] == ["metrics", "sums"]


def test_a_mask_that_cannot_be_read_is_in_no_bin(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    site = make()
    mask = next(site.data[0].rglob("*mask.nii.gz"))
    content = bytearray(mask.read_bytes())
    content[40:60] = bytes(one ^ 255 for one in content[40:60])
    mask.write_bytes(content)
    found = ask(site, tmp_path / "out").together
    assert (found["masks"]["T1w"], found["lesion_load"]["0 to below 1 ml"]) == (6, 6)


MASKED = tiny_settings().model_copy(update={"secure_aggregation": SecureAggregation(method="masks")})


def test_a_study_with_masks_gets_no_plain_answer(make: Callable[..., SiteConfig]) -> None:
    site = make()
    grid = InProcessGrid(build_app(lambda _: site, is_simulated=True), 1)
    question = Question(
        "query.survey", lambda: pack_task(RoundTask(MASKED, 1)), lambda _, one: unpack_figures("survey", one), "BAD"
    )
    (failure,) = put(grid, {1: "here"}, question, 1, MASKED.rounds).failures
    assert failure.code == "BAD_SUM"


def test_under_masks_the_sum_alone_is_seen(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    names = {1: "site-a", 2: "site-b", 3: "site-c"}
    sites = [
        make(5 + number, name=name).model_copy(update={"name": name, "state": tmp_path / "states" / name})
        for number, name in names.items()
    ]

    def survey(study: StudyConfig) -> Survey:
        app = build_app(lambda context: sites[int(context.node_config["partition-id"])], is_simulated=True)
        (tmp_path / "out").mkdir(exist_ok=True)
        return take_survey(InProcessGrid(app, 3), names, study, tmp_path / "out", Recorder())

    plain, masked = survey(tiny_settings()), survey(MASKED)
    assert masked.together == plain.together
    assert (masked.per_site, masked.sites) == ({}, tuple(names.values()))
    assert "no site's own counts are known" in notes_of(masked)[1]
    kinds = [line.kind for line in read(sites[0].state / LEDGER_FILE)]
    assert kinds == ["survey", "mask_key", "node_facts", "masked_sums", "unmask_shares"]


def test_a_study_that_withholds_more_does_not_take_a_site_out_of_the_sum(
    make: Callable[..., SiteConfig], tmp_path: Path
) -> None:
    """Sums of all and of all but one, with another floor, would differ by the last one's counts."""
    site = make()

    def told_of(name: str, min_patients: int) -> set[str]:
        settings = SecureAggregation(method="masks", min_sites=2)
        changes = {"name": name, "min_patients": min_patients, "secure_aggregation": settings}
        study = MASKED.model_copy(update=changes)
        members = members_at(tmp_path, study)
        place = expect_sum(members["bern"], members.context(), REQUEST, "final-survey")
        gateway = Gateway(site.policy, tmp_path / "ledger.jsonl", sum=place)
        site_survey(gateway, site, RoundTask(study, 1))
        return set(members["bern"].registers.read().tells.values())

    first = told_of("one", 2)
    assert len(first) == 1
    assert told_of("two", 3) == first


def test_sums_under_masks_are_those_of_the_plain_counts() -> None:
    def counts(seed: int) -> Figures:
        rng = np.random.default_rng(seed)
        return Figures(
            "survey", 5 * seed, {name: 5.0 * rng.integers(0, 4, len(cells)) for name, cells in TABLES.items()}
        )

    sites, layout = [counts(seed) for seed in (1, 2, 3)], SurveyLayout()
    total = layout.decode(sum_of(layout, sites, 3))
    assert total.num_cases == 30
    assert all(np.array_equal(total.arrays[name], sum(one.arrays[name] for one in sites)) for name in TABLES)


def test_the_page_says_what_became_of_few(make: Callable[..., SiteConfig], tmp_path: Path) -> None:
    found = ask(make(), tmp_path / "out").with_absent(["away"])
    write_page(tmp_path / "survey.html", found)
    page = " ".join((tmp_path / "survey.html").read_text().split())
    assert "rounded down to a multiple of its floor" in page
    assert "20 to below 30 years" in page
    assert notes_of(found)[-1].startswith("away did not answer: NOT_ONLINE")
    assert Survey.model_validate(json.loads(found.model_dump_json())) == found


def test_bins_have_no_gap() -> None:
    assert [bin_of(EDSS, value) for value in (-1, 0, 1.5, 2, 3.5, 4, 6, 10)] == [0, 0, 0, 1, 1, 2, 3, 3]

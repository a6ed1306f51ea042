"""What is shown of a run under masks: figures of all sites together, and that no site's own are known."""

from __future__ import annotations

import html
import io
import re

import pytest
from rich.console import Console
from tests.server.report.test_classification import SITES, measured, state_of, study_of

from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.messages.layouts import POOLED, metrics_layout, sum_of
from msfl_server.report.page import render_table, write_report
from msfl_server.results.classification import class_counts_of, reliability_of, threshold_of
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.summary import SiteSummary, Summary, read_summary, write_summary
from msfl_server.results.training_inputs import TrainingInputs, characteristics_of
from msfl_server.run.summarise import summarise_run
from msfl_server.tracking.round_values import round_values

STUDY = study_of().model_copy(update={"secure_aggregation": SecureAggregation(method="masks")})
LINE = "Sums of 3 sites under masks: no site's own figures are known."


def pooled(told):
    layout = metrics_layout(STUDY)
    return {POOLED: layout.decode(sum_of(layout, told.values(), 3))}


@pytest.fixture(scope="module")
def plain():
    return state_of(study_of())


@pytest.fixture(scope="module")
def state(plain):
    history = tuple(record.model_copy(update={"per_site": {}}) for record in plain.history)
    changes = {"validation": pooled(plain.validation), "test": pooled(plain.test), "history": history}
    cases = sum(site.cases_train for site in plain.sites), sum(site.cases_val for site in plain.sites)
    sites = (SiteSummary(name=POOLED, cases_train=cases[0], cases_val=cases[1]),)
    return plain.model_copy(update={**changes, "sites": sites})


@pytest.fixture(scope="module")
def summary(state):
    return summarise_run(STUDY, state)


def test_figures_of_all_sites_are_the_plain_ones(plain, state, summary):
    of_plain = summarise_run(study_of(), plain)
    assert summary.metrics.keys() == of_plain.metrics.keys()
    for name, metric in summary.metrics.items():
        same = of_plain.metrics[name]
        assert (metric.mean, metric.num_patients, metric.num_cases) == (same.mean, same.num_patients, same.num_cases)
        assert metric.num_sites == same.num_sites == 3
        assert metric.per_site == {}
        if metric.ci95_low is not None:
            assert (metric.ci95_low, metric.ci95_high) == (same.ci95_low, same.ci95_high)
    assert summary.classification.together == of_plain.classification.together
    assert (summary.classification.confusion == of_plain.classification.confusion).all()
    assert threshold_of(state.validation) == threshold_of(plain.validation)
    ours, theirs = (reliability_of(run.validation, run.test).groups[0] for run in (state, plain))
    assert [group[1:] for group in ours] == [group[1:] for group in theirs]
    assert [group[0] for group in ours] == pytest.approx([group[0] for group in theirs], abs=1e-12)


def test_the_summary_comes_back_from_its_file(tmp_path, summary):
    write_summary(tmp_path, summary)
    found = read_summary(tmp_path)
    assert found == summary
    assert (found.is_pooled, found.num_sites, found.site_names) == (True, 3, tuple(SITES))


def test_the_page_has_no_site_of_its_own(tmp_path, summary):
    assert summary.classification is not None
    means = ((40.0, 0.5, 2.0), (45.0, 0.5, 3.0))
    inputs = TrainingInputs(cases=(40, 12), means=means, squares=((3.0,) * 3,) * 2)
    columns = characteristics_of({POOLED: inputs}, ("0", "1"))
    told = summary.classification.model_copy(update={"characteristics": columns, "inputs": ("age", "sex", "edss")})
    page = write_report(tmp_path, summary.model_copy(update={"classification": told}), STUDY).read_text("utf-8")
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))
    assert LINE in text
    assert "by site" not in text
    assert re.search(r"No comparison of sites in AUROC.*: its sites' figures were added up under masks", text)
    assert "Every metric at every site" not in text
    assert not re.search(rf"\b{POOLED}\b", text.replace("variances pooled", ""))
    assert "3 sites (Antwerp, Ghent, Leuven) trained" in text
    assert "Confusion matrix: All sites" in text
    assert "in sums of 3 sites under masks: which site has how many is not known" in text
    assert "from the sums of all sites under masks for the model itself: no column is of one site or class" in text
    assert "that each site sends" not in text
    for site in SITES:  # who trained is said, and in the record of each round
        assert f'<th scope="col" class="num">{site}</th>' not in page


def test_the_table_says_so(summary: Summary):
    stream = io.StringIO()
    render_table(summary, Console(file=stream, width=120))
    assert LINE in stream.getvalue()
    assert "3 sites" in stream.getvalue()


def test_mlflow_is_given_no_site(state):
    values = dict(round_values(state.history[-1], summarise_metrics(state.validation)))
    assert values["auroc_sites"] == 3
    assert not [name for name in values if name.startswith("site/")]


def test_a_table_1_has_no_class_that_may_be_of_one_site_alone():
    inputs = TrainingInputs(cases=(40, 12), means=((1.0,), (2.0,)), squares=((3.0,), (4.0,)))
    assert [one.of for one in characteristics_of({POOLED: inputs}, ("rr", "sp"))] == ["all"]


def test_classes_are_counted_of_the_sites_that_told_them():
    told = measured(study_of(), 0.5, seed=30)
    told["Ghent"].score_bins[:] = 0
    told["Ghent"].confusion[:] = 0
    told["Leuven"].confusion[:] = 0
    (together,) = pooled(told).values()
    assert class_counts_of(together) == tuple(
        sum(counts) for counts in zip(*(class_counts_of(told[site]) for site in ("Antwerp", "Leuven")), strict=True)
    )

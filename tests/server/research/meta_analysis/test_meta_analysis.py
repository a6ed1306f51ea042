"""`msfl-server meta-analysis`: spellings, other libraries' figures, the page, and tables that cannot be used."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.meta_analysis import combine_effects
from tests.commands import run_main
from tests.server.report.test_page import Page

from msfl_server.cli.main import main as server
from msfl_server.research.meta_analysis.analysis import Analysis, analyse
from msfl_server.research.meta_analysis.charts import forest_chart
from msfl_server.research.meta_analysis.table import Studies, read_studies

EFFECTS = (0.61, 0.72, 0.66, 0.80, 0.58)
ERRORS = (0.02, 0.04, 0.03, 0.05, 0.025)


def table(tmp_path, *lines, encoding="utf-8"):
    path = tmp_path / "studies.tsv"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def plain(tmp_path):
    rows = [f"s{n}\t{effect}\t{error}" for n, (effect, error) in enumerate(zip(EFFECTS, ERRORS, strict=True))]
    return table(tmp_path, "study\testimate\tse", *rows)


def studies():
    return Studies(tuple(map(str, range(5))), np.array(EFFECTS), np.array(ERRORS))


def test_equals_statsmodels():
    found = analyse(studies())
    with np.errstate(invalid="ignore"):
        oracle = combine_effects(np.array(EFFECTS), np.square(ERRORS), method_re="dl", use_t=True)
        _, _, _, knapp = oracle.conf_int()
    assert found.heterogeneity.q == pytest.approx(oracle.q, rel=1e-9)
    assert (found.fixed.mean, found.random.mean) == pytest.approx((oracle.mean_effect_fe, oracle.mean_effect_re))
    assert found.random.tau2 == pytest.approx(oracle.tau2)
    assert found.random.ci95 == pytest.approx(tuple(knapp))
    assert [one.weight_random for one in found.studies] == pytest.approx(list(oracle.weights_rel_re))


def test_eggers_test_is_least_squares_of_statsmodels():
    errors = np.array(ERRORS)
    oracle = sm.OLS(np.array(EFFECTS) / errors, sm.add_constant(1 / errors)).fit()
    egger = analyse(studies()).egger
    assert (egger.intercept, egger.standard_error, egger.p) == pytest.approx(
        (oracle.params[0], oracle.bse[0], oracle.pvalues[0])
    )


@pytest.mark.parametrize("estimates", [(2.0, 3.0, 3.0), (1.0, 1.5, 2.5)])
def test_no_eggers_test_of_studies_that_leave_no_residual(estimates):
    told = np.array(estimates)  # errors in proportion: 0 but for rounding, or a line that is met
    errors = told / 2.6123 if estimates[0] == 2.0 else 1 / (told * 3)
    effects = told if estimates[0] == 2.0 else 0.4 + 2.0 * errors
    found = analyse(Studies(tuple("abc"), effects, errors))
    assert found.egger is None
    assert "Egger's test cannot be computed: the studies lie on its line" in found.notes[0]


def test_groups_are_compared_with_one_tau2_within_all():
    told = Studies(tuple("abcd"), np.array([1.0, 3.0, 6.0, 10.0]), np.ones(4), groups={"x": ("p", "p", "q", "q")})
    groups = analyse(told).subgroups["x"]
    # Fixed: means 2 and 8 of variance 1/2. Random: Q of 2 and 8 within, tau2 = (10 - 2) / 2 = 4, variance 5/2.
    assert groups.between_fixed.q == pytest.approx(36.0)
    assert groups.between_random.q == pytest.approx(7.2)
    alone = analyse(replace(told, groups={"x": tuple("pqrs")})).subgroups["x"]
    assert alone.between_random is None


def test_names_are_drawn_as_they_are():
    told = Studies(("US$ 5 and $\\frac$", "<b>&", "--> x"), np.array([0.5, 0.52, 0.49]), np.array([0.05, 0.06, 0.04]))
    svg = forest_chart(analyse(told), "DSC", 2)
    assert "\\frac" in svg
    assert "<b>" not in svg


def test_studies_that_agree_are_taken_as_fixed():
    found = analyse(Studies(("a", "b", "c"), np.array([0.5, 0.52, 0.49]), np.array([0.05, 0.06, 0.04])))
    assert (found.chosen, found.random.tau2) == ("fixed", 0.0)
    assert found.random.mean == pytest.approx(found.fixed.mean)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("Study\tEstimate\tSE", "{n}\t{e}\t{s}"),
        ("article\tyi\tvi", "{n}\t{e}\t{v}"),
        ("author\teffect\tlower\tupper", "{n}\t{e}\t{low}\t{high}"),
        ("trial\tmean\tsd\tn", "{n}\t{e}\t{sd}\t25"),
        ("study\testimate\tse\tci95_low\tci95_high", "{n}\t{e}\tn/a\t{low}\t{high}"),
    ],
)
def test_spellings_tell_the_same(tmp_path, header, row):
    lines = [
        row.format(n=f"s{n}", e=e, s=s, v=s * s, low=e - 1.959964 * s, high=e + 1.959964 * s, sd=5 * s)
        for n, (e, s) in enumerate(zip(EFFECTS, ERRORS, strict=True))
    ]
    found = read_studies(table(tmp_path, header, *lines, encoding="utf-8-sig"))
    assert found.effects_S == pytest.approx(np.array(EFFECTS))
    assert found.errors_S == pytest.approx(np.array(ERRORS), rel=1e-6)


@pytest.mark.parametrize(("header", "cell"), [("events\tn", "15\t20"), ("n/N", "15/20")])
def test_counts_are_shares(tmp_path, header, cell):
    found = read_studies(table(tmp_path, f"study\t{header}", f"a\t{cell}", f"b\t{cell}"))
    assert found.effects_S.tolist() == [0.75, 0.75]
    assert found.errors_S == pytest.approx((0.75 * 0.25 / 20) ** 0.5)


HEAD = "study\testimate\tse"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["study\testimate", "a\t.5", "b\t.6"], "line 1: nothing says how sure the estimates are; add standard_error"),
        ([HEAD, "a\t.5\t.1", "b\thigh\t.1"], "line 3, estimate: expected a finite number, found 'high'"),
        ([HEAD, "a\t0,5\t.1", "b\t.6\t.1"], "line 2, estimate: expected a finite number (a decimal point, no comma)"),
        ([HEAD, "a\t.5\t.1", "b\t.6\t"], "line 3: nothing says how sure the estimate is; give standard_error"),
        ([HEAD, "a\t\t.1", "b\t.6\t.1"], "line 2, estimate: expected a number; give it, or remove the line"),
        ([HEAD, "a\t.5\t.1", "b\t.5\t.1", "a\t.6\t.1"], "line 4: a is on line 2 already"),
        ([HEAD, "a\t.5\t.1"], "expected two studies or more, found 1"),
        ([HEAD, "a\t.5\t0", "b\t.6\t.1"], "line 2, se: expected more than 0"),
        ([HEAD, "a\t.5\t-.1", "b\t.6\t.1"], "line 2, se: expected more than 0"),
        ([HEAD, "a\t1e99\t.1", "b\t.6\t.1"], "line 2, estimate: expected a finite number"),
        ([HEAD, "a\t.5\t1e-99", "b\t.6\t.1"], "line 2, se: expected more than 0"),
        ([HEAD, "a\tinf\t.1", "b\t.6\t.1"], "line 2, estimate: expected a finite number"),
        (["study,estimate,se", "a,.5,.1"], "no tab-separated column study; its columns are separated by commas"),
        (["study;estimate;se", "a;.5;.1"], "no tab-separated column study; its columns are separated by semicolons"),
        ([HEAD, "a\t.63\t.1", "b\t66\t2", "c\t71\t2"], "line 2: 0.63 is a share, and 66 on line 3 is not"),
        ([HEAD, "a\t63%\t2", "b\t66\t2"], "line 3, estimate: expected a percent sign too, as on line 2"),
        ([HEAD, "a\t.5\t5%", "b\t.6\t4%"], "line 2, se: expected no percent sign, as the estimate has none"),
        (["study\tmean\tsd\tn", "a\t.5\t.1\t9%", "b\t.6\t.1\t9"], "line 2, n: expected a count, found '9%'"),
        ([HEAD, "a\t.5\t.1\tx", "b\t.6\t.1"], "line 2: expected 3 cells as in the first line, found 4"),
        (["study\testimate\tlow\thigh", "a\t63\t.60\t.66", "b\t.6\t.5\t.7"], "line 2: the estimate 63 is not within"),
        (["study\testimate\tse\tlow\thigh", "a\t.6\t.01\t.5\t.7", "b\t.6\t.05\t.5\t.7"], "line 2: by standard_error"),
        (["study\tevents\tn", "a\t20\t20", "b\t15\t20"], "line 2: a share of 1 has no variance of its own"),
        (["study\tevents\tn", "a\t21\t20", "b\t15\t20"], "line 2, events: expected a whole number from 0 to 20"),
        ([HEAD + "\tsubgroup", "a\t.5\t.1\tx", "b\t.6\t.1\tx"], "column subgroup has one group, x"),
        ([HEAD + "\tbias_index_test", "a\t.5\t.1\tgood", "b\t.6\t.1\tlow"], "line 2, bias_index_test: expected low"),
        ([HEAD + "\tbias_luck", "a\t.5\t.1\tlow", "b\t.6\t.1\tlow"], "line 1: bias_luck is no domain of QUADAS-2"),
        (["study\testimate\tse\tvalue", "a\t.5\t.1\t1", "b\t.6\t.1\t1"], "columns estimate and value would both be"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_a_line(tmp_path, lines, said):
    result = run_main(server, "meta-analysis", table(tmp_path, *lines), columns=1000)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "UTF-16"), ("latin-1", "is not UTF-8")])
def test_another_encoding_is_refused(tmp_path, encoding, said):
    path = table(tmp_path, HEAD, "Müller\t.5\t.1", "b\t.6\t.1", encoding=encoding)
    result = run_main(server, "meta-analysis", path)
    assert (result.returncode, said in result.stderr) == (2, True)


def test_an_unknown_subgroup_and_a_foreign_folder_are_refused(tmp_path):
    path = plain(tmp_path)
    assert "no column country" in run_main(server, "meta-analysis", path, "--subgroup", "country").stderr
    assert run_main(server, "meta-analysis", tmp_path / "none.tsv").returncode == 2
    (tmp_path / "file").write_text("of someone")
    result = run_main(server, "meta-analysis", path, "-o", tmp_path / "file", columns=1000)
    assert result.returncode == 2
    assert f"{tmp_path / 'file'}: cannot be written: File exists; choose another --output" in result.stderr
    result = run_main(server, "meta-analysis", path, "-o", tmp_path)
    assert (result.returncode, "has files of something else" in result.stderr) == (2, True)


def test_two_studies_have_no_interval_of_random_effects(tmp_path):
    result = run_main(server, "meta-analysis", table(tmp_path, HEAD, "a\t.5\t.1", "b\t.6\t.1"))
    assert result.returncode == 0
    assert "none: too few studies" in result.stdout
    assert "it takes 3 studies, and there are 2" in result.stdout


@pytest.mark.slow
def test_page_figures_and_document(tmp_path):
    domains = "subgroup\tbias_patient_selection\tapplicability_index_test"
    rows = [
        f"s{n}\t{effect}\t{error}\t{'ab'[n % 2]}\t{('low', 'high', '?')[n % 3]}\tyes"
        for n, (effect, error) in enumerate(zip(EFFECTS, ERRORS, strict=True))
    ]
    path, out = table(tmp_path, f"{HEAD}\t{domains}", *rows), tmp_path / "out"
    told = run_main(server, "meta-analysis", path, "-o", out, "--json")
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert document == json.loads((out / "meta-analysis.json").read_text())
    found = Analysis.model_validate(document)
    assert found.risk_of_bias["s1"] == {"Risk of bias: patient selection": "high", "Applicability: index test": "low"}
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"https?:|<script|<link", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    low, high = found.random.ci95
    for expected in (
        "studies: meta-analysis", f"{found.random.mean:.3f}", f"{low:.3f} to {high:.3f}", "Without s3", "Subgroups",
        "Risk of bias (QUADAS-2)", "Egger's test: intercept", "Normal intervals, as other programs print them",
    ):  # fmt: skip
        assert expected in page.text
    assert run_main(server, "meta-analysis", path, "-o", out).returncode == 0  # over its own

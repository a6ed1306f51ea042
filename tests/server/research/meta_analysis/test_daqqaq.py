"""`docs/how-to/meta-analysis-example.tsv` gives every figure that Daqqaq et al. (Neurosciences 2024) print of the DSC.

The paper prints no study's own estimate. Equal standard errors of .10 and these eight estimates give its pooled DSC, Q,
subgroups (Table 3) and leave-one-out rows (Table 4) to the last digit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from msfl_common.metrics.random_effects import i_squared
from msfl_server.research.meta_analysis.analysis import analyse
from msfl_server.research.meta_analysis.table import read_studies

TABLE = Path(__file__).parents[4] / "docs/how-to/meta-analysis-example.tsv"
TABLE_4 = {
    "Afzal 2021": (63.32, 57.06, 69.58),
    "Aslani 2019a": (62.92, 56.88, 68.96),
    "Aslani 2019b": (63.38, 57.10, 69.66),
    "Coronado 2020": (61.89, 57.20, 66.58),
    "Kazancli 2018": (64.68, 58.67, 70.69),
    "La Rosa 2018": (63.89, 57.55, 70.23),
    "Roy 2018": (64.84, 58.96, 70.71),
    "Valverde 2018": (65.32, 60.02, 70.62),
}
TABLE_3 = {  # fixed effects
    "country": {
        "Australia": (67.00, 66.80, 67.20),
        "Switzerland": (63.00, 62.80, 63.20),
        "USA": (66.70, 66.56, 66.83),
        "Spain": (55.25, 55.11, 55.39),
        "Italy": (68.17, 68.04, 68.31),
    },
    "architecture": {"2D CNN": (64.94, 64.84, 65.03), "3D CNN": (62.63, 62.53, 62.72)},
}
PRINTED = 0.0051  # half of the last digit


@pytest.fixture(scope="module")
def found():
    return analyse(read_studies(TABLE, ["country", "architecture"]))


def test_the_estimates_are_those_that_table_4_leaves_no_choice_about(found):
    """Of equal weights, all are 8 times the pooled mean less 7 times that without one: to 7 halves of a last digit."""
    for study, (mean, _, _) in zip(found.studies, TABLE_4.values(), strict=True):
        assert study.estimate == pytest.approx(8 * 63.78 - 7 * mean, abs=7 * 0.005 + 8 * 0.005)


def test_pooled(found):
    assert (found.random.mean, *found.random.ci95_normal) == pytest.approx((63.78, 58.29, 69.27), abs=PRINTED)
    assert found.heterogeneity.q == pytest.approx(43991.74, abs=PRINTED)
    assert found.heterogeneity.p < 0.00001
    assert f"{100 * found.heterogeneity.i2:.0f}" == "100"
    assert found.chosen == "random"


def test_each_study_left_out(found):
    assert list(found.leave_one_out) == list(TABLE_4)
    for name, printed in TABLE_4.items():
        one = found.leave_one_out[name].random
        assert (one.mean, *one.ci95_normal) == pytest.approx(printed, abs=PRINTED)


@pytest.mark.parametrize("column", list(TABLE_3))
def test_subgroups(found, column):
    groups = found.subgroups[column]
    assert set(groups.groups) == set(TABLE_3[column])
    for name, printed in TABLE_3[column].items():
        one = groups.groups[name].fixed
        assert (one.mean, *one.ci95) == pytest.approx(printed, abs=PRINTED + 1e-9)


def test_between_groups(found):
    architecture = found.subgroups["architecture"].between_fixed
    assert architecture.q == pytest.approx(1067.22, abs=PRINTED)
    assert f"{100 * architecture.i2:.1f}" == "99.9"
    # Table 3 prints 2121.51 with I2 = 100%, which 2121.51 is not of (99.8%): a digit is lost.
    country = found.subgroups["country"].between_fixed
    assert country.q == pytest.approx(21212.51, abs=PRINTED)
    assert f"{100 * country.i2:.0f}" == "100"


def test_the_paper_departs_from_its_own_rule():
    """Fixed effects if I2 < 50% and p > .05, else random: of its accuracies (Q 4.23, I2 53%) it took fixed."""
    assert chi2.sf(4.23, 2) == pytest.approx(0.12, abs=0.005)
    assert i_squared(4.23, 2) == pytest.approx(0.53, abs=0.005)
    assert chi2.sf(5.17, 2) == pytest.approx(0.08, abs=0.005)
    assert i_squared(5.17, 2) == pytest.approx(0.61, abs=0.005)


def test_eggers_test_has_nothing_to_tell_of_equal_standard_errors(found):
    assert found.egger is None
    assert any("same standard error" in note for note in found.notes)
    assert np.ptp([study.standard_error for study in found.studies]) == 0

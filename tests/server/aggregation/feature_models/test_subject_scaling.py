"""A case scaled over its own features is as scikit-learn and `pipelines` scale it; clinical values never are."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import normalize
from tests.feature_models import make_cases, make_settings, play, pooled

from msfl_common.config.classification import Classification
from msfl_common.feature_models.preparation import prepare, scale_subjects
from msfl_server.research.small_cohort.steps import scale_rows

INPUTS, SIZES = 9, (31, 64, 12)


@pytest.mark.parametrize(
    "preparation", [{"subject_scaling": "standard"}, {"subject_scaling": "minmax", "scaling": "none"}]
)
def test_subjects_are_scaled_by_themselves(preparation: dict[str, str]) -> None:
    sites = make_cases(0, SIZES, INPUTS)
    settings = make_settings({"kind": "lda"}, INPUTS, **preparation)
    state, rows = play(settings, sites), pooled(sites)
    values = rows.features_NP
    if preparation["subject_scaling"] == "standard":
        scaled = np.sqrt(INPUTS) * normalize(values - values.mean(axis=1, keepdims=True))
    else:
        scaled = (values - values.min(axis=1)[:, None]) / (values.max(axis=1) - values.min(axis=1))[:, None]
    scaled -= scaled.mean(axis=0)
    scaled /= scaled.std(axis=0) if preparation.get("scaling") != "none" else 1.0
    np.testing.assert_allclose(prepare(settings, state, values), scaled, atol=1e-8)


def test_subjects_are_scaled_within_groups_and_clinical_values_never() -> None:
    names = ("t1w_gm_median", "t1w_wm_median", "flair_gm_median", "flair_wm_median", "flair_gm_wm_ratio")
    section = {
        "outcome": {"column": "course"},
        "features": names,
        "clinical": ("edss", "age"),
        "preparation": {"subject_scaling": "standard", "group_by": "_"},
        "model": {"kind": "lda"},
    }
    settings = Classification.model_validate(section)
    rows = np.random.default_rng(0).normal(100, 20, (9, 7))
    found = scale_subjects(settings, rows)
    expected = scale_rows(rows, "standard", ("t1w", "t1w", "flair", "flair", "flair", None, None))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.array_equal(found[:, 5:], rows[:, 5:])
    together = Classification.model_validate(section | {"preparation": {"subject_scaling": "standard"}})
    np.testing.assert_allclose(scale_subjects(together, rows)[:, :5], scale_rows(rows[:, :5], "standard"), atol=1e-12)
    with pytest.raises(ValueError, match=r"preparation\.subject_scaling: bpf: is alone in its group, and would be 0"):
        Classification.model_validate(section | {"features": (*names, "bpf")})

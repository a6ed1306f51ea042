"""Folds of a class that some sites hardly have."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score
from tests.client.clinical.test_splits import observation

from msfl_client.classification.evaluation import measure_site
from msfl_client.clinical.splits import held_out, split_patients
from msfl_common.config.classification import Fold
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, RefusedError
from msfl_server.research.cross_validation.folds import laid_over_sites
from msfl_server.research.cross_validation.report import render_table
from msfl_server.research.cross_validation.results import FoldResult, cross_validation
from msfl_server.research.cross_validation.together import measure_together


def test_folds_are_laid_over_sites_together_where_a_class_is_rare() -> None:
    """A site with one patient who worsens, and one without, stop nothing: others have them in the other folds."""
    settings = {"outcome": {"column": "course"}, "clinical": ["age"], "model": {"kind": "lda"}}
    study = StudyConfig(name="rare", task="classification", classification=settings)
    sites = {site: [observation(n, n < num) for n in range(23)] for site, num in (("a", 1), ("b", 0), ("c", 4))}
    starts = laid_over_sites(sites, study, 5)
    runs = [
        study.model_copy(update={"classification": study.classification.model_copy(update={"fold": fold})})
        for fold in (Fold(number=number, of=5, starts=starts) for number in range(1, 6))
        if study.classification is not None
    ]
    assert len({*runs}) == 5  # sites keep what they read of a study under it
    tested = [[one for site, found in sites.items() for one in split_patients(found, run, site).test] for run in runs]
    assert [sum(one.label for one in fold) for fold in tested] == [1] * 5
    assert len([one for fold in tested for one in fold]) == 3 * 23
    assert max(map(len, tested)) - min(map(len, tested)) <= 3
    alone = [sum(one.label for found in sites.values() for one in held_out(found, n, 5, 0)) for n in range(1, 6)]
    assert 0 in alone  # each site by itself leaves a fold without
    with pytest.raises(InputError, match=r"5 patients of class 1 of course at all sites \(1 at a, 0 at b, 4 at c\)"):
        laid_over_sites(sites, study, 6)
    with pytest.raises(InputError, match=r"0 patients of class 1 of course .* correct the tables, or predict another"):
        laid_over_sites({"b": sites["b"]}, study, 5)
    assert laid_over_sites({"c": [observation(n, n < 9) for n in range(23)]}, study, 5) == {}


def test_all_folds_patients_together_tell_what_no_fold_may(tmp_path: Path) -> None:
    """Five of a class, one in each fold: the floor withholds the class in each, and not of all of them."""
    settings = {"outcome": {"column": "course"}, "clinical": ["age"], "model": {"kind": "lda"}}
    study = StudyConfig(name="rare", task="classification", classification=settings)
    rng, folders = np.random.default_rng(0), [tmp_path / f"fold-{number}" for number in range(5)]
    sites = tuple(SiteConfig(name=name, data=(tmp_path,), state=tmp_path) for name in ("a", "b"))
    truth, scores = {"a": [], "b": []}, {"a": [], "b": []}
    for number, folder in enumerate(folders):
        folder.mkdir()
        arrays = {}
        for name, positives in (("a", 1), ("b", 0)):
            labels = np.arange(8) < positives
            chance = rng.uniform(0.1, 0.7, 8) + 0.2 * labels
            patients = np.array([f"{name}{number}-{patient}" for patient in range(8)])
            values = (np.stack([1 - chance, chance], axis=1), labels.astype(np.int64), patients)
            arrays |= {
                f"{name}/{part}": one for part, one in zip(("probabilities", "labels", "patients"), values, strict=True)
            }
            truth[name] += labels.tolist()
            scores[name] += chance.tolist()
            with pytest.raises(RefusedError) if not positives else nullcontext():
                told = measure_site(*values[:2], patients.tolist(), 0.5, study, Policy())
                assert "auroc" not in told.estimates
        np.savez(folder / "scores.npz", **arrays)
    found = measure_together(study, sites, folders)
    assert [*found] == ["a"]  # b has one outcome in all folds, too
    assert found["a"].num_cases == 40
    assert found["a"].estimates["auroc"].mean == pytest.approx(roc_auc_score(truth["a"], scores["a"]))
    assert "sensitivity" not in found["a"].estimates
    together = cross_validation(study, [FoldResult(
        name="fold-1", left_out=None, rounds_completed=1, sites={}, withheld=("a", "b"), metrics={}
    )], found)  # fmt: skip
    assert together.together["auroc"].num_sites == 1
    console = Console(file=io.StringIO(), width=200)
    render_table(together, console)
    assert "All folds' test patients together, each scored by the model that did not train on him: AUROC" in (
        console.file.getvalue()  # type: ignore[attr-defined]
    )
    (folders[0] / "scores.npz").unlink()
    assert measure_together(study, sites, folders) == {}

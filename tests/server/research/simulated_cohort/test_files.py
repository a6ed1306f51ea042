"""Layout, determinism and refusals of the written cohort."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msfl_server.research.simulated_cohort.cohort import CohortSummary, make_cohort

COARSE_MM = 4.0


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CohortSummary:
    out = tmp_path_factory.mktemp("cohort") / "made"
    return make_cohort(out, num_sites=2, cases_per_site=(2, 1), seed=7, spacing_mm=COARSE_MM, num_workers=1)


@pytest.mark.slow
def test_same_bytes_with_more_workers(cohort: CohortSummary, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    make_cohort(
        tmp_path / "again",
        num_sites=2,
        cases_per_site=(2, 1),
        seed=7,
        spacing_mm=COARSE_MM,
        num_workers=2,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert _digests(tmp_path / "again") == _digests(cohort.out)
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_another_seed_gives_other_images(cohort: CohortSummary, tmp_path: Path) -> None:
    made = make_cohort(tmp_path / "other", num_sites=1, cases_per_site=1, seed=8, spacing_mm=COARSE_MM, num_workers=1)
    name = "site-a/sub-001/ses-01/anat/sub-001_ses-01_FLAIR.nii.gz"
    assert _digests(made.out)[name] != _digests(cohort.out)[name]


def test_layout(cohort: CohortSummary) -> None:
    assert [(name, count) for name, _, count in cohort.sites] == [("site-a", 2), ("site-b", 1)]
    assert (cohort.out / "contact_sheet.png").stat().st_size > 10_000
    provenance = json.loads((cohort.out / "cohort.json").read_text())
    assert provenance["seed"] == 7
    assert len(provenance["sites"]) == 2
    for _, site, count in cohort.sites:
        rows = (site / "participants.tsv").read_text().splitlines()
        assert len(rows) == count + 1
        assert set(rows[0].split("\t")) == set(json.loads((site / "participants.json").read_text()))
        for line in rows[1:]:
            subject = line.split("\t")[0]
            assert len((site / subject / f"{subject}_sessions.tsv").read_text().splitlines()) == 3
            for visit in ("ses-01", "ses-02"):
                stem = f"{subject}/{visit}/anat/{subject}_{visit}"
                assert (site / f"{stem}_T1w.json").is_file()
                assert (site / f"{stem}_FLAIR.nii.gz").is_file()
                assert (site / "derivatives" / "lesions" / f"{stem}_label-lesion_mask.nii.gz").is_file()


@pytest.mark.slow
def test_black_holes_are_lesions_that_are_dark_on_t1w(cohort: CohortSummary, tmp_path: Path) -> None:
    made = make_cohort(
        tmp_path / "made",
        num_sites=1,
        cases_per_site=1,
        seed=7,
        spacing_mm=COARSE_MM,
        num_workers=1,
        with_black_holes=True,
    )
    before, now = (_digests(one.out / "site-a" / "sub-001") for one in (cohort, made))
    assert now == before
    stem = "sub-001/ses-01/anat/sub-001_ses-01"
    plain, told_apart = (
        np.asarray(nib.load(one.out / f"site-a/derivatives/lesions/{stem}_label-lesion_mask.nii.gz").dataobj)
        for one in (cohort, made)
    )
    assert np.array_equal(plain > 0, told_apart > 0)
    assert set(np.unique(told_apart)) == {0, 1, 2}
    t1w = np.asarray(nib.load(made.out / "site-a" / f"{stem}_T1w.nii.gz").dataobj)
    assert t1w[told_apart == 2].mean() < 0.9 * t1w[told_apart == 1].mean()


def test_masks_lie_on_the_grid_of_their_images(cohort: CohortSummary) -> None:
    spacings = set()
    for mask_path in cohort.out.glob("site-*/derivatives/lesions/sub-*/ses-*/anat/*_label-lesion_mask.nii.gz"):
        site = mask_path.parents[5]
        subject, visit = mask_path.name.split("_")[:2]
        mask = nib.load(mask_path)
        values = np.asarray(mask.dataobj)
        assert set(np.unique(values)) <= {0, 1}
        assert mask.get_data_dtype() == np.uint8
        for modality in ("T1w", "FLAIR"):
            image = nib.load(site / subject / visit / "anat" / f"{subject}_{visit}_{modality}.nii.gz")
            assert image.shape == mask.shape
            np.testing.assert_array_equal(image.affine, mask.affine)
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.get_data_dtype() == np.int16
            assert np.asarray(image.dataobj)[values > 0].min() > 0
        spacings.add(tuple(round(float(z), 2) for z in mask.header.get_zooms()))
    assert (COARSE_MM,) * 3 in spacings


def test_a_cohort_is_replaced_and_anything_else_refused(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    for _ in range(2):
        make_cohort(out, num_sites=1, cases_per_site=1, spacing_mm=COARSE_MM, num_workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    (out / "site-a" / "derivatives" / "predicted").mkdir()
    (out / "site-a" / "derivatives" / "predicted" / "lesions.tsv").write_text("keep me")
    with pytest.raises(ValueError, match="site-a/derivatives/predicted, which is no part of a simulated cohort"):
        make_cohort(out, num_sites=1, cases_per_site=1, spacing_mm=COARSE_MM)
    assert (out / "site-a" / "derivatives" / "predicted" / "lesions.tsv").read_text() == "keep me"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("keep me")
    with pytest.raises(ValueError, match="something other than a simulated cohort"):
        make_cohort(tmp_path / "theirs", num_sites=1, cases_per_site=1, spacing_mm=COARSE_MM)
    assert (tmp_path / "theirs" / "thesis.txt").read_text() == "keep me"


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_cohort(
            tmp_path / "half",
            num_sites=1,
            cases_per_site=2,
            spacing_mm=COARSE_MM,
            num_workers=1,
            on_progress=interrupt,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_sites": 0}, "num_sites must be at least 1"),
        ({"cases_per_site": 0}, "between 1 and 999"),
        ({"cases_per_site": [3, 3]}, "2 numbers for 3 sites"),
        ({"seed": -1}, "seed must not be negative"),
        ({"spacing_mm": 0.5}, "spacing_mm must be between"),
        ({"spacing_mm": float("nan")}, "spacing_mm must be between"),
        ({"num_workers": 0}, "num_workers must be at least 1"),
    ],
)
def test_bad_values_are_refused(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_cohort(tmp_path / "never", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "never").exists()


def test_new_lesions_are_those_that_were_not_there(tmp_path: Path) -> None:
    made = make_cohort(
        tmp_path / "made", num_sites=1, cases_per_site=2, active=0.95, seed=3, spacing_mm=COARSE_MM, num_workers=1
    )
    folder = made.out / "site-a" / "derivatives" / "lesions"
    found = []
    for subject in ("sub-001", "sub-002"):
        new, now, before = (
            np.asarray(
                nib.load(folder / subject / visit / "anat" / f"{subject}_{visit}_label-{label}_mask.nii.gz").dataobj
            )
            for visit, label in (("ses-02", "newlesion"), ("ses-02", "lesion"), ("ses-01", "lesion"))
        )
        assert not list(folder.glob(f"{subject}/ses-01/anat/*newlesion*"))
        assert not new[now == 0].any()
        assert before[new > 0].mean() < 0.2 if new.any() else True
        found.append(int(new.sum()))
    assert max(found) > 0
    with pytest.raises(ValueError, match=r"active must be between 0.01 and 0.95, found 1"):
        make_cohort(tmp_path / "other", active=1.0)

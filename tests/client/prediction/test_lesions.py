"""Prediction in each case's own grid."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msfl_client.imaging.brain_extraction import _networks
from msfl_client.prediction.lesions import predict_folder
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CohortError, InputError
from msfl_common.models.model_folder import LESION_THRESHOLD, Provenance, save_model
from msfl_common.models.network import build_network, get_weights


@pytest.fixture
def model(tmp_path: Path, tiny_study: StudyConfig) -> Path:
    return saved(tmp_path / "model", tiny_study)


def saved(folder: Path, study: StudyConfig) -> Path:
    save_model(folder, study, get_weights(build_network(study)), Provenance(rounds_completed=1, sites={}))
    return folder


def table(output: Path) -> list[dict[str, str]]:
    with (output / "lesions.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_masks_and_maps_lie_on_the_cases_own_grid(site, model: Path, tmp_path: Path) -> None:
    site.turn(site.image("sub-02", "FLAIR"))
    rows = predict_folder(model, site.root, tmp_path / "out", "cpu")
    assert [row.status for row in rows] == ["ok"] * 3
    for row in rows:
        own = nib.load(site.image(row.participant_id, "FLAIR"))
        folder = tmp_path / "out" / row.participant_id / "anat"
        mask = nib.load(folder / f"{row.participant_id}_label-lesion_mask.nii.gz")
        probability = nib.load(folder / f"{row.participant_id}_label-lesion_probseg.nii.gz")
        assert mask.shape == probability.shape == own.shape
        assert np.allclose(mask.affine, own.affine)
        voxels = np.asarray(mask.dataobj)
        assert np.array_equal(voxels, np.asarray(probability.dataobj) >= LESION_THRESHOLD)
        volume_ml = voxels.sum() * np.prod(own.header.get_zooms()) / 1000
        assert row.lesion_volume_ml == pytest.approx(volume_ml, abs=1e-3)
    assert [line["participant_id"] for line in table(tmp_path / "out")] == ["sub-01", "sub-02", "sub-03"]
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"


def test_a_bad_case_is_named_and_the_rest_go_on(site, model: Path, tmp_path: Path) -> None:
    site.image("sub-02", "T1w").unlink()
    site.image("sub-03", "FLAIR").write_text("not an image")
    rows = predict_folder(model, site.root, tmp_path / "out", "cpu")
    assert [row.status == "ok" for row in rows] == [True, False, False]
    assert table(tmp_path / "out")[1]["lesion_count"] == "n/a"
    assert "T1w" in table(tmp_path / "out")[1]["status"]


def test_an_earlier_mask_of_a_case_that_is_left_out_is_said(site, model: Path, tmp_path: Path) -> None:
    site.image("sub-03", "T1w").unlink()
    predict_folder(model, site.root, tmp_path / "out", "cpu")
    site.image("sub-02", "T1w").unlink()
    predict_folder(model, site.root, tmp_path / "out", "cpu")
    _, second, third = table(tmp_path / "out")
    assert second["status"].endswith("; the mask that lies here is an earlier run's")
    assert third["status"].startswith("left out: ")
    assert "earlier" not in third["status"]


def test_a_prediction_needs_no_mask_and_carries_no_header_text(site, model: Path, tmp_path: Path) -> None:
    path = site.image("sub-01", "FLAIR")
    image = nib.load(path)
    image.header["descrip"] = b"Jane Doe 1980-01-01"
    nib.save(image, path)
    predict_folder(model, site.root, tmp_path / "out", "cpu")
    for made in (tmp_path / "out").rglob("sub-01*.nii.gz"):
        assert b"Jane" not in nib.load(made).header.binaryblock


def test_two_predictions_are_byte_identical(site, model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        predict_folder(model, site.root, tmp_path / name, "cpu")
    for made in (tmp_path / "one").rglob("*.nii.gz"):
        assert made.read_bytes() == (tmp_path / "two" / made.relative_to(tmp_path / "one")).read_bytes()


def test_after_an_interruption_table_and_page_have_what_was_done(site, model: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder(model, site.root, tmp_path / "out", "cpu", interrupt)
    assert [row["participant_id"] for row in table(tmp_path / "out")] == ["sub-01", "sub-02"]
    page = (tmp_path / "out" / "qc.html").read_text()
    assert [f'id="sub-0{number}"' in page for number in (1, 2, 3)] == [True, True, False]
    assert {path.name for path in (tmp_path / "out").glob("sub-*")} == {"sub-01", "sub-02"}


def test_nothing_usable_is_an_error(site, model: Path, tmp_path: Path) -> None:
    for path in site.root.rglob("*_T1w.nii.gz"):
        path.unlink()
    with pytest.raises(CohortError, match="none of 3 cases"):
        predict_folder(model, site.root, tmp_path / "out", "cpu")


def test_an_output_that_cannot_be_written_is_an_error(site, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        predict_folder(model, site.root, tmp_path / "file" / "out", "cpu")


@pytest.mark.slow
def test_a_head_without_a_brain_is_left_out(make_site, tiny_study: StudyConfig, tmp_path: Path) -> None:
    inputs = tiny_study.inputs.model_copy(update={"contrasts": ("T1w",)})  # evening out each takes long
    model = saved(tmp_path / "model", tiny_study.model_copy(update={"inputs": inputs}))
    with pytest.raises(CohortError):
        predict_folder(model, full_of_head(make_site).root, tmp_path / "out", "cpu")
    status = table(tmp_path / "out")[0]["status"]
    assert status.startswith(("left out: the brain does not fit", "left out: no brain was found"))


def test_a_whole_head_is_refused_without_the_packages(make_site, model: Path, tmp_path: Path, monkeypatch) -> None:
    _networks.cache_clear()
    monkeypatch.setitem(sys.modules, "deepbet", None)
    monkeypatch.setitem(sys.modules, "deepbet.bet", None)
    with pytest.raises(CohortError):
        predict_folder(model, full_of_head(make_site).root, tmp_path / "out", "cpu")
    status = table(tmp_path / "out")[0]["status"]
    assert "expected a skull-stripped image, found one that is not: T1w, FLAIR" in status
    assert "install msfl[client], which brings deepbet" in status


def full_of_head(make_site):  # type: ignore[no-untyped-def]
    """A site with a case of seven litres."""
    site = make_site(subjects=["sub-01"])
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in (40, 46, 34)), indexing="ij")
    head = np.where(sum(axis**2 for axis in axes) < 1, 100 + 10 * axes[0], 0).astype(np.float32)
    for contrast in ("T1w", "FLAIR"):
        site.save(site.image("sub-01", contrast), head + (contrast == "FLAIR") * (head > 0))
    return site


def test_several_models_predict_the_mean_of_their_probabilities(site, tiny_study: StudyConfig, tmp_path: Path) -> None:
    folders = [saved(tmp_path / f"model-{seed}", tiny_study.model_copy(update={"seed": seed})) for seed in range(2)]
    for name, models in (("one", folders[:1]), ("other", folders[1:]), ("both", folders)):
        predict_folder(models, site.root, tmp_path / name, "cpu", threshold=0.02)
    one, other, both = (
        np.asarray(nib.load(tmp_path / name / "sub-01" / "anat" / "sub-01_label-lesion_probseg.nii.gz").dataobj)
        for name in ("one", "other", "both")
    )
    assert not np.allclose(one, other, atol=1e-3)
    assert np.allclose(both, (one + other) / 2, atol=1e-6)
    digests = json.loads((tmp_path / "both" / "dataset_description.json").read_text())["ModelWeightsSHA256"]
    assert len(set(digests)) == 2
    assert "Mean of 2 models" in (tmp_path / "both" / "qc.html").read_text()
    with pytest.raises(InputError, match="holds what another model predicted"):
        predict_folder(folders[:1], site.root, tmp_path / "both", "cpu", threshold=0.02)


def test_models_that_do_not_see_the_same_are_no_ensemble(site, tiny_study: StudyConfig, tmp_path: Path) -> None:
    first = saved(tmp_path / "first", tiny_study)
    finer = tiny_study.model_copy(update={"inputs": tiny_study.inputs.model_copy(update={"spacing_mm": 2.0})})
    finer = saved(tmp_path / "finer", finer)
    with pytest.raises(InputError, match=r"finer: sees T1w\+FLAIR at 2 mm, and .*first T1w\+FLAIR at 4 mm"):
        predict_folder([first, finer], site.root, tmp_path / "out", "cpu")
    classes = tiny_study.inputs.model_copy(update={"lesion_classes": ("lesion", "rim")})
    apart = saved(tmp_path / "apart", tiny_study.model_copy(update={"inputs": classes}))
    with pytest.raises(InputError, match=r"apart: sees T1w\+FLAIR at 4 mm, and tells lesion, rim apart, and .*4 mm; "):
        predict_folder([first, apart], site.root, tmp_path / "out", "cpu")
    with pytest.raises(InputError, match="has the same weights as another --model"):
        predict_folder([first, first], site.root, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()

"""Classes of lesions: learned as overlapping regions, told apart, measured by class, written as a label map."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.client.segmentation.test_loop import STUDY, bright_lesions

from msfl_client.data.checks import check_site
from msfl_client.data.patient_split import CaseSplit
from msfl_client.prediction.lesions import predict_folder
from msfl_client.segmentation.lesion_classes import labels_of_regions, regions_of
from msfl_client.segmentation.loop import loss_of, predict_probability, predict_regions, train_round, validate
from msfl_client.segmentation.network_input import NetworkInput, make_network_input
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.segmentation.trainer import open_segmentation
from msfl_common.config.base import validate as read
from msfl_common.config.site import Policy
from msfl_common.config.study import Inputs, StudyConfig
from msfl_common.errors import ConfigError
from msfl_common.messages.records import RoundTask, pack_metrics, unpack_metrics
from msfl_common.metrics.lesion_classes import CLASS_METRICS
from msfl_common.metrics.registry import TASK_METRICS, metrics_of
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights

CPU = torch.device("cpu")
CLASSES = ("lesion", "black-hole")
CLASSIFICATION = {"outcome": {"endpoint": "edss-worsening"}, "features": ["bpf"], "model": {"kind": "lda"}}


def with_classes(study: StudyConfig) -> StudyConfig:
    return study.model_copy(update={"inputs": study.inputs.model_copy(update={"lesion_classes": CLASSES})})


def with_dark_ones(seed: int) -> NetworkInput:
    """Lesions in the left half are dark in the first contrast."""
    case = bright_lesions(seed)
    assert case.label_DHW is not None
    label_DHW = case.label_DHW.copy()
    label_DHW[:12][label_DHW[:12] > 0] = 2
    image_CDHW = case.image_CDHW.copy()
    image_CDHW[0] -= 3 * (label_DHW == 2)
    return replace(case, image_CDHW=image_CDHW, label_DHW=label_DHW)


def test_regions_hold_all_lesions_first_and_then_each_class() -> None:
    label = np.array([[[0, 1, 2, 2]]], np.uint8)
    assert regions_of(label, 3).tolist() == [[[[0, 1, 1, 1]]], [[[0, 1, 0, 0]]], [[[0, 0, 1, 1]]]]
    assert regions_of(label, 1).tolist() == [[[[0, 1, 1, 1]]]]
    assert np.array_equal(labels_of_regions(regions_of(label, 3).astype(np.float32), 0.3), label)


def test_a_voxel_that_is_lesion_has_the_most_probable_class_however_improbable() -> None:
    probability = np.array([0.3, 0.29, 0.9, 0.9])[None, None], np.array([0.1, 0.9, 0.2, 0.2])[None, None]
    both = np.stack([*probability, np.array([0.2, 0.1, 0.2, 0.8])[None, None]]).astype(np.float32)
    assert labels_of_regions(both, np.float32(0.3)).tolist() == [[[2, 0, 1, 2]]]


def test_the_loss_is_the_mean_over_regions_at_each_level() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 4, 4, 4, generator=draws)  # two levels of three regions
    label = (torch.rand(2, 3, 4, 4, 4, generator=draws) > 0.8).float()
    alone = [float(loss_of(logits[:, [at]], label[:, [at % 3]])) for at in range(6)]
    assert float(loss_of(logits, label)) == pytest.approx((2 * np.mean(alone[:3]) + np.mean(alone[3:])) / 3)


def test_patches_of_classes_are_those_of_all_lesions_with_more_channels() -> None:
    cases = [with_dark_ones(0), with_dark_ones(1)]
    plain, told_apart = (PatchDataset(cases, STUDY.training, 3, num) for num in (1, 3))
    for index in range(6):
        (image, label), (same, regions) = plain[index], told_apart[index]
        assert torch.equal(image, same)
        assert regions.shape == (3, 16, 16, 16)
        assert torch.equal(regions[:1], label)
        assert torch.equal(regions[0], regions[1] + regions[2])


@pytest.mark.slow
def test_training_tells_an_easy_class_apart() -> None:
    study = with_classes(STUDY)
    network = build_network(study)
    loader = PatchLoader(PatchDataset([with_dark_ones(seed) for seed in range(4)], study.training, 1, 3), CPU)
    for number in (1, 2, 3):
        train_round(network, loader, study, number, CPU, lambda *_: None)
    case = with_dark_ones(9)
    (row,) = validate(network, [case], study, CPU, lambda *_: None)
    assert row["dsc"] > 0.7
    assert row["dsc_lesion"] > 0.6
    assert row["dsc_black_hole"] > 0.6
    assert set(row) == {*TASK_METRICS["lesion-segmentation"]} & {*row} | {
        *CLASS_METRICS["lesion"],
        *CLASS_METRICS["black-hole"],
    }
    regions = predict_regions(network, case.image_CDHW, study, CPU)
    assert np.array_equal(predict_probability(network, case.image_CDHW, study, CPU), regions[0])


def marked(site: Any, subject: str, values: NDArray[np.uint8]) -> None:
    site.save(site.mask(subject), values)


def halves(site: Any) -> NDArray[np.uint8]:
    """A label map of a head: left of its middle 1, right of it 2, within a box."""
    head = site.head("")
    label: NDArray[np.uint8] = np.zeros(head.shape, np.uint8)
    middle = [size // 2 for size in head.shape]
    box = tuple(slice(at - 3, at + 3) for at in middle)
    label[box] = 1
    label[middle[0] : middle[0] + 3, box[1], box[2]] = 2
    return label


def test_a_mask_with_an_undeclared_value_is_left_out_by_name(site: Any) -> None:
    marked(site, "sub-01", halves(site))
    marked(site, "sub-02", halves(site) + (halves(site) == 2))
    told_apart = check_site(site.config(), Inputs(lesion_classes=CLASSES))
    assert set(told_apart.excluded) == {"sub-02"}
    assert told_apart.excluded["sub-02"] == ["mask: expected the values 0, 1 (lesion), 2 (black-hole), found 0, 1, 3"]
    assert not [one for one in told_apart.findings if one.rule == "mask-class"]
    site.mask("sub-01").unlink()
    (text,) = [
        one.text
        for one in check_site(site.config(), Inputs(lesion_classes=CLASSES)).findings
        if one.rule == "mask-class"
    ]
    assert text.startswith("no lesion mask has the value 2 (black-hole): the network learns that")
    marked(site, "sub-01", halves(site))
    binary = check_site(site.config(), Inputs())
    assert set(binary.excluded) == {"sub-01", "sub-02"}  # what was found before is not kept for other demands


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"inputs": {"lesion_classes": ["black-hole"]}},
            "; expected two or more, each named once; of one class leave it out",
        ),
        (
            {"inputs": {"lesion_classes": ["rim", "rim"]}},
            "; expected two or more, each named once; of one class leave it out",
        ),
        ({"task": "new-lesions"}, "inputs.lesion_classes: the task new-lesions takes all lesions alike"),
        (
            {"task": "classification", "classification": CLASSIFICATION},
            "inputs.lesion_classes: the task classification takes all lesions alike",
        ),
        ({"validation": {"best_by": "dsc_rim"}}, "validation.best_by: 'dsc_rim' is no metric of this study"),
        ({"validation": {"best_by": "ppv_black_hole"}}, "validation.best_by: ppv_black_hole is undefined where"),
    ],
)
def test_what_does_not_tell_classes_apart_refuses_them_by_name(changes: dict[str, Any], line: str) -> None:
    content = {"name": "classes", "inputs": {"lesion_classes": [*CLASSES]}}
    assert read(StudyConfig, {**content, "validation": {"best_by": "dsc_black_hole"}}, "study")
    with pytest.raises(ConfigError) as caught:
        read(StudyConfig, {**content, **changes}, "study")
    assert any(line in fault for fault in caught.value.faults), caught.value.faults


def test_the_network_sees_classes_where_the_mask_has_them(site: Any) -> None:
    marked(site, "sub-01", halves(site))
    case = check_site(site.config(), Inputs(lesion_classes=CLASSES)).cases[0]
    found = make_network_input(case, Inputs(lesion_classes=CLASSES, spacing_mm=4.0)).label_DHW
    assert found is not None
    assert set(np.unique(found)) == {0, 1, 2}
    assert (found == 1).sum() == pytest.approx((found == 2).sum(), rel=0.3)
    plain = replace(case, mask=site.mask("sub-02"))
    assert make_network_input(plain, Inputs(spacing_mm=4.0)).label_DHW is not None


@pytest.mark.slow
def test_a_site_tells_the_metrics_of_each_class(
    make_site: Callable[..., Any], tiny_study: StudyConfig, tmp_path: Any
) -> None:
    site, study = make_site(subjects=["sub-01", "sub-02", "sub-03"]), with_classes(tiny_study)
    for subject in ("sub-01", "sub-02", "sub-03"):
        marked(site, subject, halves(site))

    def split(cases: Any) -> CaseSplit:
        return CaseSplit(cases[:1], cases[1:])

    config = site.config(policy=Policy(min_patients=1))
    learner = open_segmentation(config, study, (CPU,), lambda *_: None, split, study.name)[0]
    task = RoundTask(study, 2)
    weights, _ = learner.train(get_weights(build_network(study)), 1, lambda *_: None, 1)
    told = learner.measure(weights, task, lambda *_: None)
    assert {"dsc", "dsc_lesion", "dsc_black_hole", "tpr_black_hole"} <= set(told.estimates)
    names = frozenset(metrics_of(study.task, study.inputs.lesion_classes))
    assert set(unpack_metrics(pack_metrics(told), names).estimates) == set(told.estimates)
    foreseen = learner.foresee(task)
    assert not set(foreseen.withheld) & set(told.estimates)

    save_model(tmp_path / "model", study, weights, Provenance(rounds_completed=1, sites={}))
    (row, *_) = predict_folder(tmp_path / "model", site.root, tmp_path / "out", "cpu", threshold=0.01)
    folder = tmp_path / "out" / "sub-01" / "anat"
    mask, classes = (
        np.asarray(nib.load(folder / f"sub-01_{name}.nii.gz").dataobj)
        for name in ("label-lesion_mask", "seg-lesion_dseg")
    )
    assert mask.any()
    assert np.array_equal(mask > 0, classes > 0)
    assert set(np.unique(classes)) <= {0, 1, 2}
    table = (folder / "sub-01_seg-lesion_dseg.tsv").read_text()
    assert table == "index\tname\n0\tbackground\n1\tlesion\n2\tblack-hole\n"
    about = json.loads((folder / "sub-01_seg-lesion_dseg.json").read_text())
    volumes_ml = [one["LesionVolumeMl"] for one in about["Lesions"].values()]
    assert list(about["Lesions"]) == list(CLASSES)
    assert sum(volumes_ml) == pytest.approx(row.lesion_volume_ml, abs=1e-3)
    assert "sub-01_seg-lesion_dseg.nii.gz" in (tmp_path / "out" / "qc.html").read_text()

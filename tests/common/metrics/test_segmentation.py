"""The metrics against naive implementations that share no code with them."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from msfl_common.metrics.registry import possible_range
from msfl_common.metrics.segmentation import METRICS, NATIVE, NATIVE_METRICS, segmentation_metrics

SPACINGS = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (3.0, 0.9, 1.1), (0.5, 0.5, 4.0)]


def voxels(mask):
    return {tuple(index) for index in np.argwhere(mask).tolist()}


def naive_lesions(mask, spacing_mm):
    left, lesions = voxels(mask), []
    while left:
        front, lesion = [left.pop()], set()
        while front:
            voxel = front.pop()
            lesion.add(voxel)
            for step in itertools.product((-1, 0, 1), repeat=3):
                neighbour = tuple(v + s for v, s in zip(voxel, step, strict=True))
                if neighbour in left:
                    left.remove(neighbour)
                    front.append(neighbour)
        if len(lesion) * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] > 2.9999:
            lesions.append(lesion)
    return lesions


def naive_surface(mask):
    inside = voxels(mask)
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return [v for v in inside if any((v[0] + a, v[1] + b, v[2] + c) not in inside for a, b, c in steps)]


def naive_distances(from_surface, to_surface, spacing_mm):
    def distance(one, other):
        return math.sqrt(sum(((a - b) * s) ** 2 for a, b, s in zip(one, other, spacing_mm, strict=True)))

    return sorted(min(distance(voxel, other) for other in to_surface) for voxel in from_surface)


def naive_percentile_95(ordered):
    position = 0.95 * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


SIZED = dict.fromkeys(("lesion_tpr_small", "lesion_tpr_medium", "lesion_tpr_large"), math.nan)


def naive_metrics(prediction, truth, spacing_mm):
    """Every metric of two masks that are not empty and hold at least one lesion each."""
    p, r = voxels(prediction), voxels(truth)
    lesions_p, lesions_r = naive_lesions(prediction, spacing_mm), naive_lesions(truth, spacing_mm)
    found = sum(any(lesion & other for other in lesions_p) for lesion in lesions_r) / len(lesions_r)
    false = sum(not any(lesion & other for other in lesions_r) for lesion in lesions_p) / len(lesions_p)
    precision = 1 - false
    of_size = {"small": [], "medium": [], "large": []}
    for lesion in lesions_r:
        mm3 = len(lesion) * np.prod(spacing_mm) + 1e-6
        of_size["small" if mm3 < 25 else "medium" if mm3 < 100 else "large"].append(
            any(lesion & other for other in lesions_p)
        )
    surface_p, surface_r = naive_surface(prediction), naive_surface(truth)
    d_p = naive_distances(surface_p, surface_r, spacing_mm)
    d_r = naive_distances(surface_r, surface_p, spacing_mm)
    return {
        "dsc": 2 * len(p & r) / (len(p) + len(r)),
        "ppv": len(p & r) / len(p),
        "tpr": len(p & r) / len(r),
        "lesion_tpr": found,
        **{f"lesion_tpr_{size}": sum(of) / len(of) if of else math.nan for size, of in of_size.items()},
        "lesion_fpr": false,
        "lesion_f1": 2 * found * precision / (found + precision) if found + precision else 0.0,
        "abs_volume_difference_ml": abs(len(p) - len(r)) * np.prod(spacing_mm) / 1000,
        "hd95_mm": max(naive_percentile_95(d_p), naive_percentile_95(d_r)),
        "surface_dice": sum(d <= 1.0 for d in d_p + d_r) / (len(d_p) + len(d_r)),
    }


def random_masks(seed, shape=(7, 8, 9)):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < rng.uniform(0.02, 0.3)
    prediction = np.where(rng.random(shape) < 0.8, truth, rng.random(shape) < 0.1)
    return prediction, truth


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("seed", range(15))
def test_agrees_with_the_naive_definitions(seed, spacing_mm):
    prediction, truth = random_masks(seed)
    measured = segmentation_metrics(prediction, truth, spacing_mm)
    assert measured == pytest.approx(naive_metrics(prediction, truth, spacing_mm), abs=1e-9, nan_ok=True)


# MONAI 1.6 passes itself an argument that it has deprecated.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_agrees_with_monai_on_surfaces(spacing_mm):
    prediction, truth = random_masks(3, shape=(14, 15, 16))
    both = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": list(spacing_mm)}
    measured = segmentation_metrics(prediction, truth, spacing_mm)
    assert measured["hd95_mm"] == pytest.approx(
        compute_hausdorff_distance(*both, percentile=95, **options).item(), rel=1e-5
    )
    assert measured["surface_dice"] == pytest.approx(
        compute_surface_dice(*both, class_thresholds=[1.0], **options).item(), rel=1e-5
    )


def test_the_table_names_every_metric_and_its_bounds():
    for seed in range(10):
        measured = segmentation_metrics(*random_masks(seed), (1.0, 1.0, 1.0))
        assert list(measured) == list(METRICS)
        assert all(
            METRICS[name].lower <= value <= METRICS[name].upper
            for name, value in measured.items()
            if name not in SIZED or not math.isnan(value)
        )


def test_a_perfect_prediction_is_perfect():
    _, truth = random_masks(1)
    assert segmentation_metrics(truth, truth, (1.0, 1.0, 1.0)) == pytest.approx(
        {
            "dsc": 1, "ppv": 1, "tpr": 1, "lesion_tpr": 1, **SIZED, "lesion_tpr_small": 1, "lesion_fpr": 0,
            "lesion_f1": 1, "abs_volume_difference_ml": 0, "hd95_mm": 0, "surface_dice": 1,
        },
        nan_ok=True,
    )  # fmt: skip


def test_lesions_are_told_by_their_size():
    truth = np.zeros((20, 20, 20), dtype=bool)
    truth[0, 0, :20] = truth[0, 1, :4] = True  # 24 mm3 in one
    truth[5, 5, :3] = True
    truth[10:15, 10:15, 10] = True  # 25 mm3
    truth[10:15, 0:5, 0:4] = True  # 100 mm3
    prediction = np.zeros_like(truth)
    prediction[5, 5, 2] = prediction[5, 5, 3] = prediction[5, 5, 4] = True
    prediction[10:12, 0:5, 0:4] = True
    measured = segmentation_metrics(prediction, truth, (1.0, 1.0, 1.0))
    assert [measured[name] for name in SIZED] == [0.5, 0.0, 1.0]


def test_both_empty():
    empty = np.zeros((4, 5, 6), dtype=bool)
    nan = math.nan
    assert segmentation_metrics(empty, empty, (1.0, 1.0, 1.0)) == pytest.approx(
        {
            "dsc": 1, "ppv": nan, "tpr": nan, "lesion_tpr": nan, **SIZED, "lesion_fpr": nan, "lesion_f1": 1,
            "abs_volume_difference_ml": 0, "hd95_mm": 0, "surface_dice": 1,
        },
        nan_ok=True,
    )  # fmt: skip


def test_one_empty():
    empty, full = np.zeros((4, 5, 6), dtype=bool), np.zeros((4, 5, 6), dtype=bool)
    full[1:3, 1:3, 1:3] = True
    nan = math.nan
    shared = {
        "dsc": 0, "lesion_f1": 0, "abs_volume_difference_ml": 0.064, "hd95_mm": nan, "surface_dice": 0,
    }  # fmt: skip
    assert segmentation_metrics(empty, full, (2.0, 2.0, 2.0)) == pytest.approx(
        {**shared, "ppv": nan, "tpr": 0, "lesion_tpr": 0, **SIZED, "lesion_tpr_medium": 0, "lesion_fpr": nan},
        nan_ok=True,
    )
    assert segmentation_metrics(full, empty, (2.0, 2.0, 2.0)) == pytest.approx(
        {**shared, "ppv": 0, "tpr": nan, "lesion_tpr": nan, **SIZED, "lesion_fpr": 1}, nan_ok=True
    )


def test_a_component_below_3_mm3_is_no_lesion():
    prediction, truth = (np.zeros((6, 6, 6), dtype=bool) for _ in range(2))
    truth[0, 0, 0:2] = True  # 2 mm3
    truth[3, 3, 1:4] = True  # 3 mm3
    prediction[0, 0, 0:3] = True  # touches only the component that is too small
    prediction[5, 5, 5] = True  # itself too small
    measured = segmentation_metrics(prediction, truth, (1.0, 1.0, 1.0))
    assert (measured["lesion_tpr"], measured["lesion_fpr"], measured["lesion_f1"]) == (0.0, 1.0, 0.0)


def test_voxels_that_share_a_corner_are_one_lesion():
    mask = np.zeros((4, 4, 4), dtype=bool)
    for index in range(3):
        mask[index, index, index] = True
    assert segmentation_metrics(mask, mask, (1.0, 1.0, 1.0))["lesion_tpr"] == 1.0


@pytest.mark.parametrize(
    ("prediction", "truth", "spacing_mm", "message"),
    [
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2), bool), (1, 1, 1), "prediction: expected a boolean 3D mask"),
        (np.zeros((2, 2), bool), np.zeros((2, 2), bool), (1, 1, 1), "expected a boolean 3D mask"),
        (np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool), (1, 1, 1), "masks on one grid"),
        (np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool), (1, 0, 1), "three positive sizes"),
    ],
)
def test_bad_input_is_refused(prediction, truth, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        segmentation_metrics(prediction, truth, spacing_mm)


def test_a_2_mm_brain_takes_well_under_a_second():
    rng = np.random.default_rng(0)
    truth, prediction = (np.zeros((91, 109, 91), dtype=bool) for _ in range(2))
    for centre in rng.integers(20, 70, size=(100, 3)):
        box = tuple(slice(c, c + 3) for c in centre)
        truth[box] = True
        prediction[tuple(slice(c + 1, c + 4) for c in centre)] = True
    start = time.perf_counter()
    segmentation_metrics(prediction, truth, (2.0, 2.0, 2.0))
    assert time.perf_counter() - start < 1.0


def test_a_perfect_mask_has_the_best_value_of_every_metric() -> None:
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[2:5, 2:5, 2:5] = mask[7:10, 7:9, 7:10] = mask[0] = True  # 27, 18 and 144 mm3
    found = segmentation_metrics(mask, mask, (1.0, 1.0, 1.0))
    best = {name: metric.upper if metric.higher_is_better else metric.lower for name, metric in METRICS.items()}
    assert found == best


def test_every_metric_has_its_like_on_the_own_grid() -> None:
    """As bounded in what a site may send, and under a title that names the grid."""
    twice = {name: metric for name, metric in METRICS.items() if name not in SIZED}
    assert [f"{name}{NATIVE}" for name in twice] == list(NATIVE_METRICS)
    for name, metric in twice.items():
        own = NATIVE_METRICS[f"{name}{NATIVE}"]
        assert possible_range(f"{name}{NATIVE}") == possible_range(name)
        assert (own.unit, own.higher_is_better) == (metric.unit, metric.higher_is_better)
        assert metric.title.removesuffix("study's grid") == own.title.removesuffix("own grid")

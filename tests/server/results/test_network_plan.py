"""nnU-Net's rules on what surveys tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.surveys import HEADS, survey_of_heads

from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_server.results.network_plan import plan_network, values_of_patch

EXAMPLE = Path(__file__).parents[3] / "site_configs" / "lesions.example.yaml"


def test_heads_of_1_mm_get_what_nnunet_plans_for_8_gb() -> None:
    """As its plans for brains of 1 mm: six levels of 32 to 320 maps, two patches of about 128 voxels an edge."""
    plan = plan_network(survey_of_heads(HEADS), 8)
    assert (plan.spacing_mm, plan.patch_voxels, plan.batch_size) == (1.0, 128, 2)
    assert plan.channels == (32, 64, 128, 256, 320, 320)
    assert plan.reasons[1].endswith("140 mm wide at its narrowest, of which 8 GB hold 128 mm")
    assert plan_network(survey_of_heads(HEADS), 24).reasons[1].endswith("140 mm wide at its narrowest")
    study = plan.applied(StudyConfig(name="s"))
    assert study.network.model_dump()["deep_supervision"] is True
    assert study.training.steps_per_round == StudyConfig(name="s").training.steps_per_round
    example = load_study(EXAMPLE)
    assert (example.inputs, example.network) == (study.inputs, study.network)
    assert (example.training.patch_voxels, example.training.batch_size) == (128, 2)


@pytest.mark.parametrize(
    ("voxel", "slices", "extent", "memory_gb", "expected"),
    [
        (1.0, 1.0, 138.0, 24.0, (1.0, 160)),  # as large as the median head
        (1.0, 1.0, 138.0, 2.0, (1.0, 80)),
        (1.6, 5.0, 138.0, 8.0, (1.6, 96)),
        (4.0, 4.0, 138.0, 8.0, (3.6, 40)),
    ],
)
def test_other_voxels_and_memory(
    voxel: float, slices: float, extent: float, memory_gb: float, expected: tuple[float, int]
) -> None:
    plan = plan_network(survey_of_heads((voxel, slices, extent)), memory_gb)
    assert (plan.spacing_mm, plan.patch_voxels) == expected
    assert plan.batch_size >= 2
    assert plan.patch_voxels % 2 ** (len(plan.channels) - 1) == 0
    assert plan.patch_voxels >> (len(plan.channels) - 1) >= 4
    assert plan.batch_size == 2 or plan.batch_size * values_of_patch(plan.patch_voxels, plan.channels) <= 2 * 560e6 * (
        memory_gb / 8
    )
    plan.applied(StudyConfig(name="s"))
    assert any("interpolated" in reason for reason in plan.reasons) == (slices == 5.0)


def test_the_median_patient_decides() -> None:
    plan = plan_network(survey_of_heads((0.5, 1, 138), (1.0, 1, 138), (1.0, 3, 138), (3.0, 3, 138)), 8)
    assert (plan.spacing_mm, plan.num_patients) == (1.0, 160)


def test_a_survey_that_tells_nothing_of_images_is_refused() -> None:
    with pytest.raises(InputError, match="tells nothing of `voxel`"):
        plan_network(survey_of_heads(patients=0), 8)


def test_a_study_that_trains_no_network_is_refused() -> None:
    content = {
        "name": "s",
        "task": "classification",
        "classification": {"outcome": {"column": "x"}, "model": {"kind": "lda"}},
    }
    with pytest.raises(InputError, match="trains no segmentation network"):
        plan_network(survey_of_heads(), 8).applied(StudyConfig.model_validate(content))


def test_maps_of_a_patch_are_counted_as_nnunet_does() -> None:
    """Two levels of 2 and 4 maps in 4 voxels an edge: down 2 x 2, 2 x 4; up 2 + 2 x 2 maps and the logits."""
    assert values_of_patch(4, (2, 4)) == 64 * (4 + 6 + 1) + 8 * 8

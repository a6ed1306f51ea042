"""Small studies of deep models, and visits that can be learnt from."""

from __future__ import annotations

import numpy as np

from msfl_client.classification.visit_sequences import VisitSequence
from msfl_common.config.classification import Classification, DeepModel, Outcome
from msfl_common.config.study import Inputs, Rounds, StudyConfig, Training
from msfl_common.networks.registry import UNet

KINDS = ("resnet3d", "pretrained-resnet2d", "resnext", "lesion-encoder")
SUBSCORES: tuple[str, ...] = (
    *("fs_visual", "fs_brainstem", "fs_pyramidal", "fs_cerebellar"),
    *("fs_sensory", "fs_bowel_bladder", "fs_cerebral", "fs_ambulation"),
)
SHAPE = (8, 16, 16)


def tiny_study(kind: str, **changes: object) -> StudyConfig:
    """Width 4, 8 slices of 16 x 16 pixels, two contrasts, two clinical values."""
    model = DeepModel(kind=kind, width=4, slices=SHAPE[0], pixels=SHAPE[1], max_visits=3, dropout=0.0)
    study = StudyConfig(
        name="tiny",
        task="classification",
        network=UNet(channels=(4, 8)),
        inputs=Inputs(contrasts=("T1w", "FLAIR"), spacing_mm=4.0),
        training=Training(steps_per_round=30, batch_size=4, patch_voxels=16, learning_rate=0.01),
        rounds=Rounds(num_rounds=2, quorum=1),
        classification=Classification(outcome=Outcome(endpoint="activity"), clinical=("age", "fs_visual"), model=model),
    )
    return study.model_copy(update=changes)


def full_study(kind: str, *contrasts: str) -> StudyConfig:
    """The paper's size: width 64, 50 slices of 128 x 128 pixels, eight subscores."""
    return StudyConfig(
        name="full",
        task="classification",
        inputs=Inputs(contrasts=contrasts),
        classification=Classification(
            outcome=Outcome(endpoint="activity"), clinical=SUBSCORES, model=DeepModel(kind=kind)
        ),
    )


def learnable_sequence(seed: int, label: int, num_visits: int = 2) -> VisitSequence:
    """Brains of noise; those of the last class grow a bright spot in the second contrast, every visit anew."""
    rng = np.random.default_rng((seed, label))
    volumes = rng.uniform(60, 120, (num_visits, 2, *SHAPE)).astype(np.float32)
    volumes[:, :, :, :3] = 0  # no brain there
    if label:
        volumes[:, 1, 2:6, 6:11, 6:11] = 250
    clinical = rng.uniform(0, 1, (num_visits, 2)).astype(np.float32)
    return VisitSequence(tuple(volumes), clinical, np.ones(num_visits, bool), label, f"patient-{seed}-{label}")

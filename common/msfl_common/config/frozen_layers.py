"""Which arrays of a network a round leaves as they are, by `training.freeze`.

Every site sends them back as they came. The coordinator holds them to what it sent, so that neither rounding nor a site
that changed them does.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from msfl_common.config.classification import DeepModel
from msfl_common.config.freeze import ENCODER
from msfl_common.config.study import StudyConfig


def frozen_names(study: StudyConfig, number: int, names: Collection[str]) -> frozenset[str]:
    """The arrays of a network that round `number` leaves as they are.

    Args:
        study: of the stage.
        number: from 1.
        names: of all arrays of its network.
    """
    if study.classification is not None and not isinstance(study.classification.model, DeepModel):
        return frozenset()
    training = study.training
    if not training.freeze or (training.freeze_rounds is not None and number > training.freeze_rounds):
        return frozenset()
    return frozenset(name for pattern in training.freeze for name in names_of(study, pattern, names))


def names_of(study: StudyConfig, pattern: str, names: Collection[str]) -> frozenset[str]:
    """The arrays that one entry of `training.freeze` stands for."""
    layers: tuple[str, ...] = (pattern,)
    if pattern == ENCODER and study.classification is None:
        within = "network." if study.network.dimensions == 2 else ""
        layers = tuple(f"{within}{layer}" for layer in study.network.encoder_layers)
    return frozenset(
        name
        for name in names
        if any(name == layer or fnmatchcase(name, f"{layer}.*") or fnmatchcase(name, layer) for layer in layers)
    )

"""Which optimiser a network is trained by, at which rate: a model's own, or what `training` says in their place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Literal

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Optimisation:
    """How weights follow gradients.

    Attributes:
        optimiser: PyTorch's of that name; AdamW's weight decay is decoupled, the others' is part of the gradient.
        learning_rate: at the start.
        weight_decay: the optimiser's.
        decays: whether the rate falls to 0 over all steps of all rounds (cosine), or stays.
    """

    optimiser: Literal["Adam", "NAdam", "AdamW"]
    learning_rate: float
    weight_decay: float
    decays: bool = False


_OWN = Optimisation("AdamW", 1e-3, 1e-2, decays=True)
# Barulina et al. 2026, section 4; constant over all epochs. The paper does not say how its weight decay acts.
_PAPERS = {
    "resnet3d": Optimisation("Adam", 1e-4, 0.0),
    "pretrained-resnet2d": Optimisation("Adam", 1e-4, 0.0),
    "resnext": Optimisation("NAdam", 1e-3, 0.05),
}


def optimisation_of(study: StudyConfig) -> Optimisation:
    """The study's optimiser and rates: what `training` says, and the model's own where it says nothing.

    A rate that is written down does not change whether it falls: the paper's models have a constant one.
    """
    model = study.classification.model if study.classification is not None else None
    own = _PAPERS.get(model.kind, _OWN) if isinstance(model, DeepModel) else _OWN
    rate, decay = study.training.learning_rate, study.training.weight_decay
    return replace(
        own,
        learning_rate=own.learning_rate if rate is None else rate,
        weight_decay=own.weight_decay if decay is None else decay,
    )


def written_out(study: StudyConfig) -> StudyConfig:
    """The study with what it leaves to its model and strategy written out: to be compared with another."""
    used = optimisation_of(study)
    training = {"learning_rate": used.learning_rate, "weight_decay": used.weight_decay}
    return study.model_copy(
        update={
            "training": study.training.model_copy(update=training),
            "strategy": study.strategy if study.strategy is not None or not study.averages else FedAvg(),
        }
    )


def settings_sha256(study: StudyConfig) -> str:
    """Digest of a study's settings but how its rounds go: the same where a default is written out and where it is not.

    What a site writes down under it, to be held against later requests, cannot be asked for anew by another spelling.
    """
    said = json.loads(study.model_dump_json(exclude={"rounds", "segmentation"}))
    kind = ((said.get("classification") or {}).get("model") or {}).get("kind")
    own = _PAPERS.get(str(kind), _OWN)
    defaults = {"learning_rate": own.learning_rate, "weight_decay": own.weight_decay}
    said["training"] = {k: None if k in defaults and v == defaults[k] else v for k, v in said["training"].items()}
    if said["strategy"] == {"kind": "fedavg"}:
        said["strategy"] = None
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()

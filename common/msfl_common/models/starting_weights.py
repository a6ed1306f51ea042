"""What a study starts from. Run as a program, it writes a study's first weights; see `msfl_common.models.weights`."""

from __future__ import annotations

import sys
from pathlib import Path

from msfl_common.config.classification import DeepModel
from msfl_common.config.frozen_layers import frozen_names, names_of
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import InputError
from msfl_common.feature_models import first_state
from msfl_common.models.deep_models.start import build_started, missing_start
from msfl_common.models.evaluated_model import load_evaluated
from msfl_common.models.first_weights import first_content
from msfl_common.models.model_signature import check_origin
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.start_sources import is_model_folder, read_source
from msfl_common.models.started_from import StartedFrom
from msfl_common.models.transfer import started_from, transferred
from msfl_common.models.weights import Weights
from msfl_common.system.seeds import derive_seed


def starting_weights(study: StudyConfig, start_from: Path | None = None) -> Weights:
    """The weights that a study starts from; see `started`."""
    return started(study, start_from)[0]


def started(study: StudyConfig, start_from: Path | None = None) -> tuple[Weights, StartedFrom | None]:
    """What a study starts from: a network's first weights, or the state of a feature model before any case.

    Args:
        study: what is trained.
        start_from: a model folder, a checkpoint or a MONAI bundle that a segmentation starts from; of a deep model see
            `msfl_common.models.deep_models.start`; of a study that measures a model, its folder.

    Returns:
        The weights, and what is told of where they come from, if not random.

    Raises:
        InputError: the study's model cannot start from that, or is not the one that is measured.
    """
    settings = study.classification
    if study.evaluate is not None:
        return load_evaluated(study, start_from), None
    is_deep = settings is not None and isinstance(settings.model, DeepModel)
    if start_from is not None:
        _expect_can_start(study, start_from, settings is None or is_deep)
    if settings is None or is_deep:
        first, told = _segmentation(study, start_from) if settings is None else build_started(study, start_from)
        expect_frozen(study, first)
        return first, told
    return first_state(settings, derive_seed(study.seed, "weights")), None


def _segmentation(study: StudyConfig, start_from: Path | None) -> tuple[Weights, StartedFrom | None]:
    first = get_weights(build_network(study))
    if start_from is None:
        return first, None
    source = read_source(start_from)
    taken = transferred(source, study, first)
    return taken.weights, started_from(source, study, len(taken.weights), taken)


def say_start(study: StudyConfig, start_from: Path | None, told: StartedFrom | None) -> str | None:
    """What people are told of what a model starts from, and who vouches for it; None where there is nothing to tell."""
    if told is None:
        return missing_start(study, start_from)
    is_signed = start_from is not None and is_model_folder(start_from)
    return f"{told.sentence} {check_origin(start_from).sentence}" if is_signed and start_from else told.sentence


def expect_frozen(study: StudyConfig, first: Weights) -> None:
    """Hold `training.freeze` against the network that there is.

    Raises:
        InputError: an entry is of no layer, or nothing is left to train.
    """
    for pattern in study.training.freeze:
        if not names_of(study, pattern, first):
            raise InputError(
                f"training.freeze: {pattern}: no layer of study {study.name}'s network has that name; expected names "
                f"such as {next(iter(first)).rpartition('.')[0]}, or encoder"
            )
    if not set(first) - frozen_names(study, 1, first):
        raise InputError(f"training.freeze: leaves nothing of study {study.name}'s network to train; name fewer layers")


def _expect_can_start(study: StudyConfig, start_from: Path, is_network: bool) -> None:
    if not is_network and study.classification is not None:
        raise InputError(
            f"{start_from}: {study.classification.model.kind} is learned from sums or trees and starts from nothing; "
            "segmentations and deep models start from a file; leave it out"
        )
    if study.strategy is not None and study.strategy.is_personal:
        raise InputError(
            f"{start_from}: strategy {study.strategy.kind} keeps layers at the sites, where they start from random "
            "weights and not from this; expected another, such as fedavg or finetune"
        )
    if study.baselines.local:
        raise InputError(
            f"{start_from}: baselines.local trains each site's own model from random weights, so that it would not "
            "be compared with this start alike; leave `baselines` out"
        )


if __name__ == "__main__":
    study, start_from = parse_study(sys.stdin.read()), Path(sys.argv[1]) if sys.argv[1:] else None
    try:
        first, told = started(study, start_from)
        if (sentence := say_start(study, start_from, told)) is not None:
            sys.stderr.write(f"{sentence}\n")
    except InputError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(first_content(first, told))

"""What a study starts from. Run as a program, it writes a study's first weights; see `msfl_common.models.weights`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import InputError
from msfl_common.feature_models import first_state
from msfl_common.models.deep_models.start import build_started, origin
from msfl_common.models.evaluated_model import load_evaluated
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import ORDER, Weights, to_safetensors
from msfl_common.system.seeds import derive_seed


def starting_weights(study: StudyConfig, start_from: Path | None = None) -> Weights:
    """What a study starts from: a network's first weights, or the state of a feature model before any case.

    Args:
        study: what is trained.
        start_from: see `msfl_common.models.deep_models.start`; of a study that measures a model, its folder.

    Raises:
        InputError: the study's model cannot start from that, or is not the one that is measured.
    """
    settings = study.classification
    if study.evaluate is not None:
        return load_evaluated(study, start_from)
    if start_from is not None and (settings is None or not isinstance(settings.model, DeepModel)):
        raise InputError(f"{start_from}: only pretrained-resnet2d and lesion-encoder start from a file; leave it out")
    if settings is None:
        return get_weights(build_network(study))
    if isinstance(settings.model, DeepModel):
        return get_weights(build_started(study, start_from))
    return first_state(settings, derive_seed(study.seed, "weights"))


if __name__ == "__main__":
    study, start_from = parse_study(sys.stdin.read()), Path(sys.argv[1]) if sys.argv[1:] else None
    try:
        if (sentence := origin(study, start_from)) is not None:
            sys.stderr.write(f"{sentence}\n")
        first = starting_weights(study, start_from)
    except InputError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(to_safetensors(first, {ORDER: json.dumps(list(first))}))

"""What a site answers in a study that measures a trained model: figures of the very weights that were agreed to."""

from __future__ import annotations

import hashlib

from msfl_common.config.message_kinds import TEST, VALIDATION, Request
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.models.weights import Weights, to_safetensors

_LEARNED = ("model_update", "harmonization_sums")  # answers that something is learned from


def check_asked(asked: Request, purpose: str | None, study: StudyConfig) -> None:
    """Refuse to train, or to give sums, in a study that measures a model, and to measure other patients than it says.

    Raises:
        RefusedError: with the code BAD_STUDY.
    """
    if study.evaluate is None:
        return
    if asked.answer in _LEARNED:
        raise RefusedError(
            Code.BAD_STUDY, f"asked for {asked.words}, but the study measures a model and trains nothing"
        )
    if purpose == VALIDATION:
        raise RefusedError(
            Code.BAD_STUDY, f"asked for a {VALIDATION}, but the study measures a model once, by a {TEST}"
        )


def sha256_of(weights: Weights) -> str:
    """SHA-256 of weights as a model's folder holds them."""
    return hashlib.sha256(to_safetensors(weights)).hexdigest()


def check_weights(study: StudyConfig, weights: Weights) -> None:
    """Refuse other weights than those that the study names, where it names any.

    Raises:
        RefusedError: with the code BAD_MODEL.
    """
    if study.evaluate is None:
        return
    found = sha256_of(weights)
    if found != study.evaluate.weights_sha256:
        named = study.evaluate.weights_sha256
        raise RefusedError(Code.BAD_MODEL, f"sent weights with the SHA-256 {found}; evaluate.weights_sha256 is {named}")

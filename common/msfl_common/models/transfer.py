"""Weights of one network taken over by another: the same layers, but for what they see and what they tell apart.

First layers are those whose shape depends on how many contrasts there are. Of them, a contrast that both know keeps its
weights; one that is new has the mean of the other's over all of its contrasts, as what is common to contrasts (edges,
tissue) is a better start than random weights. Nothing is scaled: what follows
normalises. A contrast of the visit before, new to a model of single visits, has the weights of the same contrast. A
clinical value that is new starts as the study's own. The last layer starts anew where classes differ.

Legend: O outputs, C contrast, K inputs of a contrast (1, or slices), F features, E clinical values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import DeepModel
from msfl_common.config.contrasts import is_earlier, later
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.expected_weights import weights_like
from msfl_common.models.start_sources import Source, plain_name
from msfl_common.models.started_from import StartedFrom
from msfl_common.models.weights import Weights

Array = NDArray[Any]

_VISIT = "recurrent.weight_ih_l0"  # of deep models: features of the images, flags of contrasts, clinical values
_LAST_OF_DEEP = "output."
_FEW, _MORE = ("lesion", "black-hole"), ("lesion", "black-hole", "enhancing")  # any classes of lesions
_COUNTERS = "num_batches_tracked"  # which older checkpoints lack, and nothing reads


@dataclass(frozen=True)
class Taken:
    """A network's first weights, and what of them is not as it was found."""

    weights: Weights
    adapted: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()


def transferred(source: Source, study: StudyConfig, first: Weights) -> Taken:
    """A study's first weights, with those of a source in their place.

    Args:
        source: where from.
        study: what is trained.
        first: its network's own first weights, for what starts anew.

    Raises:
        InputError: settings, names or shapes that do not fit, by name.
    """
    _expect_settings(source, study)
    found = source.weights if source.study else _named_as(source.weights, first)
    _expect_names(source, found, first)
    sees, wants = source.channels, study.inputs.network_channels
    inputs, num_maps = _inputs_of(study), len(np.atleast_1d(found[list(first)[-1]]))
    outputs = _outputs_of(study) if source.study is None or _told_apart(source.study) != _told_apart(study) else ()
    adapted, anew, weights = [], [], {}
    for name, like in first.items():
        value = found.get(name, like)
        if name in outputs and (source.study is not None or _is_wider(study, value.shape, like.shape, num_maps)):
            anew.append(name)
            value = like
        elif name == _VISIT and source.study is not None:
            value = _visit(value, like, source.study, study)
        elif name in inputs:
            value = _seen(source, value, like, sees, wants)
        if value.shape != like.shape:
            raise InputError(
                f"{source.path}: {name}: expected {list(like.shape)}, found {list(value.shape)}; it is of another "
                "network, or of other inputs: give the study the same `network`, or leave --start-from out"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{source.path}: {name}: a value is not finite; start from another")
        same = name in found and (found[name].shape == value.shape) and np.array_equal(found[name], value)
        if not same and name not in anew and name in found:
            adapted.append(name)
        weights[name] = np.asarray(value, dtype=like.dtype, order="C")
    return Taken(weights, tuple(adapted), tuple(anew))


def started_from(source: Source, study: StudyConfig, num_taken: int, taken: Taken | None = None) -> StartedFrom:
    """What is told of where a study's first weights come from.

    Args:
        source: where from.
        study: what is trained.
        num_taken: arrays that a network has.
        taken: what of them is not as it was found.
    """
    adapted, anew = (taken.adapted, taken.anew) if taken else ((), ())
    return StartedFrom(
        kind=source.kind,
        weights_sha256=source.sha256,
        study=source.study.name if source.study else None,
        sites=source.sites,
        is_split_alike=source.study is not None and _split(source.study) == _split(study),
        num_taken=num_taken - len(anew),
        adapted=adapted,
        anew=anew,
    )


def _split(study: StudyConfig) -> object:
    """What decides which of a site's patients train."""
    part, outcome = study.validation, study.classification
    whose = (outcome.outcome, outcome.test_fraction, outcome.fold) if outcome is not None else None
    return study.seed, part.fraction, part.test_fraction, part.min_test_patients, part.fold, whose


def _expect_settings(source: Source, study: StudyConfig) -> None:
    """Hold what a model was trained on and as against the study.

    Raises:
        InputError: the first setting that differs, and the fix.
    """
    if source.study is None:
        return
    found, wanted = _settings(source.study), _settings(study)
    for key in {**found, **wanted}:
        if found.get(key) != wanted.get(key):
            raise InputError(
                f"{source.path}: {key} is {found.get(key)} there and {wanted.get(key)} in study {study.name}; start "
                "from a model of the same, or change the study's"
            )


def _settings(study: StudyConfig) -> dict[str, object]:
    """What decides, beside contrasts and classes, what weights mean."""
    told: dict[str, object] = {}
    model = study.classification.model if study.classification is not None else None
    told["what it learns"] = "an outcome" if study.classification is not None else "lesions"
    if isinstance(model, DeepModel):
        told |= {f"classification.model.{key}": getattr(model, key) for key in ("kind", "width", "slices", "pixels")}
    elif model is not None:
        told["classification.model.kind"] = model.kind
    if model is None or model.kind == "lesion-encoder":
        told["inputs.spacing_mm"] = study.inputs.spacing_mm
        told |= {f"network.{key}": value for key, value in study.network.model_dump(mode="json").items()}
    return told


def _expect_names(source: Source, found: Weights, first: Weights) -> None:
    needed = {name for name in first if not name.endswith(_COUNTERS)}
    strange = sorted((needed - set(found)) | (set(found) - set(first)))
    if strange:
        lacks = sum(name in needed for name in strange)
        raise InputError(
            f"{source.path}: expected the {len(first)} arrays of the study's network, found others: "
            f"{', '.join(strange[:3])} ({lacks} are missing, {len(strange) - lacks} are strange); give the study the "
            "same `network`, or leave --start-from out"
        )


def _named_as(found: Weights, first: Weights) -> Weights:
    """Weights of MONAI's network by the names that the study's has: without second names, and within `AxialSlices`."""
    prefix = "network." if all(name.startswith("network.") for name in first) else ""
    found = {f"{prefix}{name}": value for name, value in found.items()}
    seen = {name: value for name, value in found.items() if name in first}
    # MONAI's DynUNet lists each block twice; what is no second name of what the study's network has is strange.
    twice = [value for name, value in found.items() if name in first]
    strange = {
        name: value
        for name, value in found.items()
        if name not in first and not any(one.shape == value.shape and np.array_equal(one, value) for one in twice)
    }
    return {**seen, **strange}


def _inputs_of(study: StudyConfig) -> frozenset[str]:
    """The arrays of first layers: those whose shape depends on how many contrasts there are."""
    contrasts = study.inputs.contrasts
    more = study.model_copy(
        update={"inputs": study.inputs.model_copy(update={"contrasts": (*contrasts, contrasts[0])})}
    )
    like, wider = weights_like(study), weights_like(more)
    return frozenset(name for name, value in like.items() if value.shape != wider[name].shape) - {_VISIT}


def _outputs_of(study: StudyConfig) -> frozenset[str]:
    """The arrays of last layers: of networks of lesions, those whose shape depends on how many regions there are."""
    if study.classification is not None:
        return frozenset(name for name in weights_like(study) if name.startswith(_LAST_OF_DEEP))
    changes = ({"inputs": study.inputs.model_copy(update={"lesion_classes": of})} for of in (_FEW, _MORE))
    few, more = (weights_like(study.model_copy(update=one)) for one in changes)
    return frozenset(name for name, value in few.items() if value.shape != more[name].shape)


def _is_wider(study: StudyConfig, found: tuple[int, ...], like: tuple[int, ...], num_maps: int) -> bool:
    """Whether an array of a bundle's last layer is of another number of maps, and else the same."""
    return (
        found != like
        and len(found) == len(like)
        and all(
            has == num_maps != wants == study.inputs.num_regions or has == wants
            for has, wants in zip(found, like, strict=True)
        )
    )


def _told_apart(study: StudyConfig) -> object:
    if study.classification is None:
        return study.inputs.lesion_classes
    outcome = study.classification.outcome
    return outcome.column, outcome.endpoint, outcome.classes


def _seen(source: Source, value_OCK: Array, like_OCK: Array, sees: Sequence[str], wants: Sequence[str]) -> Array:
    """A first layer's weights, put to the contrasts of the study."""
    if value_OCK.ndim != like_OCK.ndim or len(value_OCK) != len(like_OCK):
        return value_OCK
    of_each, rest = divmod(like_OCK.shape[1], len(wants))
    num_seen, left = divmod(value_OCK.shape[1], of_each)
    if rest or left or not num_seen:
        return value_OCK
    places = _places(source, num_seen, sees, wants)
    parts = value_OCK.reshape(len(value_OCK), num_seen, of_each, *value_OCK.shape[2:])
    mean = parts.mean(axis=1, dtype=np.float64).astype(value_OCK.dtype)
    put = np.stack([mean if place is None else parts[:, place] for place in places], axis=1)
    return put.reshape(like_OCK.shape) if put.size == like_OCK.size else value_OCK


def _places(source: Source, num_seen: int, sees: Sequence[str], wants: Sequence[str]) -> list[int | None]:
    """Of each contrast of the study its place among the source's; None where that has none of it."""
    plain = [plain_name(one) for one in sees] if len(sees) == num_seen else []
    places: list[int | None] = []
    for channel in wants:
        names = (channel, later(channel)) if is_earlier(channel) else (channel,)
        places.append(next((plain.index(plain_name(one)) for one in names if plain_name(one) in plain), None))
    if any(place is not None for place in places):
        return places
    if source.study is not None:
        raise InputError(
            f"{source.path}: sees {', '.join(sees)}, and none of the study's contrasts, {', '.join(wants)}; start from "
            "a model of one of them, or leave --start-from out"
        )
    return list(range(num_seen)) if num_seen == len(wants) else [None] * len(wants)


def _visit(value_HJ: Array, like_HJ: Array, had: StudyConfig, study: StudyConfig) -> Array:
    """What the recurrent network makes of a visit: features, then a flag of each contrast and each clinical value."""
    assert had.classification is not None
    assert study.classification is not None
    knew = [*had.inputs.network_channels, *had.classification.inputs]
    wants = [*study.inputs.network_channels, *study.classification.inputs]
    num_features = like_HJ.shape[1] - len(wants)
    if len(value_HJ) != len(like_HJ) or value_HJ.shape[1] - len(knew) != num_features:
        return value_HJ
    put = np.array(like_HJ)
    put[:, :num_features] = value_HJ[:, :num_features]
    for column, name in enumerate(wants):
        if name in knew:
            put[:, num_features + column] = value_HJ[:, num_features + knew.index(name)]
    return put

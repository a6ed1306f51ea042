"""The BIDS derivative folder that predictions are written to: never over what MSFL did not make."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msfl_client.prediction.threshold import caution_of
from msfl_common import __version__
from msfl_common.errors import InputError
from msfl_common.models.model_card import NOTICE
from msfl_common.models.model_folder import ModelCard
from msfl_common.system.files import write_json
from msfl_common.system.reading import read_mapping

DESCRIPTION = "dataset_description.json"
_GENERATOR, _WEIGHTS, _THRESHOLD = "msfl", "ModelWeightsSHA256", "Threshold"


def describe_output(
    output: Path,
    source: Path,
    card: ModelCard,
    what: str,
    origin: str,
    threshold: float | None = None,
    weights_sha256: str | list[str] | None = None,
) -> None:
    """Make a folder a BIDS derivative that says what it holds and which model made it.

    It is new, empty, or holds predictions of the same model at the same threshold, whose files are replaced one by one.

    Args:
        output: the folder.
        source: the BIDS folder, or the file, that is read.
        card: the model's.
        what: is predicted.
        origin: who vouches for the model, for those who get the output.
        threshold: by which it was decided; None: by none.
        weights_sha256: of several models that predict together, the digests of all; None: the card's.

    Raises:
        InputError: it lies among the raw data, holds something else, or cannot be written.
    """
    weights_sha256 = weights_sha256 or card.weights_sha256
    check_apart(output, source)
    _check_ours(output, card, threshold, weights_sha256)
    try:
        write_json(
            output / DESCRIPTION,
            {
                "Name": f"{what} predicted by study {card.study.name}",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": _GENERATOR, "Version": __version__, "Description": NOTICE}],
                _WEIGHTS: weights_sha256,
                "ModelOrigin": origin,
                **threshold_facts(card, threshold),
            },
        )
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; choose another --output") from None


def threshold_facts(card: ModelCard, threshold: float | None) -> dict[str, Any]:
    """What a JSON file beside predictions says of their threshold."""
    if threshold is None:
        return {}
    caution = caution_of(card, threshold)
    return {_THRESHOLD: threshold, "StudyThreshold": card.threshold, **({"ThresholdNote": caution} if caution else {})}


def check_apart(output: Path, source: Path, usual: str = "predicted") -> None:
    """Raw data stay as they are: only `derivatives/` of their folder may take an output.

    Raises:
        InputError: it lies among them; such as `usual` in `derivatives/` is named.
    """
    there, raw = output.resolve(), source.resolve()
    derivatives = raw / "derivatives"
    inside = there.is_relative_to(raw) and not (there.is_relative_to(derivatives) and there != derivatives)
    other = (source.parent if source.is_file() else derivatives) / usual
    if inside or raw.is_relative_to(there):
        raise InputError(
            f"{output}: the images that are read lie {'there' if there == raw else 'in the same folder'}; choose "
            f"another --output, such as {other}"
        )


def _check_ours(output: Path, card: ModelCard, threshold: float | None, weights_sha256: str | list[str]) -> None:
    """What is there already was predicted by this model at this threshold, and no folder leads out of it."""
    try:
        held = [entry.name for entry in output.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; choose another --output") from None
    if held:
        _check_description(output, card, threshold, weights_sha256)
    for link in _linked_folders(output):
        raise InputError(f"{link}: is a link, through which files would be written elsewhere; remove it")


def _check_description(output: Path, card: ModelCard, threshold: float | None, weights_sha256: str | list[str]) -> None:
    found = read_mapping(output / DESCRIPTION)
    if not _is_by_msfl(found):
        raise InputError(f"{output}: holds files that `predict` did not write; choose another --output, new or empty")
    if found[_WEIGHTS] != weights_sha256:
        raise InputError(
            f"{output}: holds what another model predicted ({found.get('Name', 'unnamed')}); choose another --output, "
            "or move that away"
        )
    if threshold is not None and (before := found.get(_THRESHOLD, card.threshold)) != threshold:
        raise InputError(
            f"{output}: holds what this model predicted at threshold {before}, not {threshold:g}; choose another "
            "--output, or move that away"
        )


def _linked_folders(folder: Path) -> Iterator[Path]:
    """Links to folders, and to nothing, that files would be written through."""
    for parent, names, _ in os.walk(folder):
        yield from (path for name in names if (path := Path(parent, name)).is_symlink())


def _is_by_msfl(description: dict[str, Any]) -> bool:
    by = description.get("GeneratedBy")
    named = isinstance(by, list) and any(isinstance(one, dict) and one.get("Name") == _GENERATOR for one in by)
    return named and description.get("DatasetType") == "derivative" and _WEIGHTS in description

"""The BIDS derivative folder that predictions are written to: never over what MSFL did not make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msfl_common import __version__
from msfl_common.errors import InputError
from msfl_common.models.model_card import NOTICE
from msfl_common.models.model_folder import ModelCard
from msfl_common.system.files import write_json
from msfl_common.system.reading import read_mapping

DESCRIPTION = "dataset_description.json"
_GENERATOR, _WEIGHTS = "msfl", "ModelWeightsSHA256"


def describe_output(output: Path, source: Path, card: ModelCard, what: str, origin: str) -> None:
    """Make a folder a BIDS derivative that says what it holds and which model made it.

    It is new, empty, or holds predictions of the same model, whose files are replaced one by one.

    Args:
        output: the folder.
        source: the BIDS folder that is read.
        card: the model's.
        what: is predicted.
        origin: who vouches for the model, for those who get the output.

    Raises:
        InputError: it lies among the raw data, holds something else, or cannot be written.
    """
    _check_apart(output, source)
    _check_ours(output, card)
    try:
        write_json(
            output / DESCRIPTION,
            {
                "Name": f"{what} predicted by study {card.study.name}",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": _GENERATOR, "Version": __version__, "Description": NOTICE}],
                _WEIGHTS: card.weights_sha256,
                "ModelOrigin": origin,
            },
        )
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; choose another --output") from None


def _check_apart(output: Path, source: Path) -> None:
    """Raw data stay as they are: only `derivatives/` of their folder may take an output."""
    there, raw = output.resolve(), source.resolve()
    derivatives = raw / "derivatives"
    inside = there.is_relative_to(raw) and not (there.is_relative_to(derivatives) and there != derivatives)
    if inside or raw.is_relative_to(there):
        raise InputError(
            f"{output}: the images that are read lie {'there' if there == raw else 'in the same folder'}; choose "
            f"another --output, such as {source / 'derivatives' / 'predicted'}"
        )


def _check_ours(output: Path, card: ModelCard) -> None:
    """What is there already was predicted by this model."""
    try:
        held = [entry.name for entry in output.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; choose another --output") from None
    if not held:
        return
    found = read_mapping(output / DESCRIPTION)
    if not _is_by_msfl(found):
        raise InputError(f"{output}: holds files that `predict` did not write; choose another --output, new or empty")
    if found[_WEIGHTS] != card.weights_sha256:
        raise InputError(
            f"{output}: holds what another model predicted ({found.get('Name', 'unnamed')}); choose another --output, "
            "or move that away"
        )


def _is_by_msfl(description: dict[str, Any]) -> bool:
    by = description.get("GeneratedBy")
    named = isinstance(by, list) and any(isinstance(one, dict) and one.get("Name") == _GENERATOR for one in by)
    return named and description.get("DatasetType") == "derivative" and _WEIGHTS in description

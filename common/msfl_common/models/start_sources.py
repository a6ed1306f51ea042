"""What networks can start from, read: model folders, checkpoints of other studies, and bundles of MONAI.

No file is ever run: weights are safetensors, or what PyTorch reads as weights alone (`weights_only`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load

from msfl_common.config.base import validate
from msfl_common.config.secure_aggregation import POOLED
from msfl_common.config.spelling import NAME
from msfl_common.config.stages import STAGES, Stage, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError, InputError, UpdateError, reason
from msfl_common.models.expected_weights import weights_like
from msfl_common.models.model_folder import CARD_FILE, load_model
from msfl_common.models.started_from import Kind
from msfl_common.models.weights import Weights, check_header, check_weights, most_bytes
from msfl_common.system.reading import parse_json, read_bounded, read_mapping

_CHECKPOINT_FILES = ("weights.safetensors", "state.json")
_SETTINGS_FILES = ("run.json", "study.json")  # of a simulation, and of a run among real sites
METADATA, BUNDLE_WEIGHTS = Path("configs", "metadata.json"), Path("models", "model.pt")
MOST_BUNDLE = 2**31  # bytes of a bundle's weights
_WRAPPED = ("model", "state_dict")  # keys under which trainers keep weights beside other things


@dataclass(frozen=True)
class Source:
    """Weights to start from.

    Attributes:
        path: as it was named.
        kind: what it is.
        weights: by name.
        sha256: of their file.
        study: that trained them; None where it is none of ours.
        channels: what each input channel shows; numbers where that is not known.
        sites: that trained them.
    """

    path: Path
    kind: Kind
    weights: Weights
    sha256: str
    study: StudyConfig | None
    channels: tuple[str, ...]
    sites: tuple[str, ...] = ()


def read_source(path: Path) -> Source:
    """What a study's network is to start from.

    Raises:
        InputError: it is missing, damaged, or nothing to start from.
    """
    if (path / METADATA).is_file():
        return _bundle(path)
    if all((path / name).is_file() for name in _CHECKPOINT_FILES):
        return _checkpoint(path)
    if path.is_file():
        raise InputError(
            f"{path}: expected a model folder, a checkpoint (RUN_DIR/checkpoints/round_0010) or a MONAI bundle, found "
            "a file"
        )
    card, weights = load_model(path)
    told = card.provenance
    sites = tuple(site for site in {*told.sites, *told.summed_sites} if told.is_of(site) and site != POOLED)
    return Source(
        path,
        "model folder",
        weights,
        card.weights_sha256,
        card.study,
        card.study.inputs.network_channels,
        tuple(sorted(sites)),
    )


def is_model_folder(path: Path) -> bool:
    """Whether a folder says that it is a model's."""
    return (path / CARD_FILE).is_file()


def _checkpoint(folder: Path) -> Source:
    """A round of another run, simulated or not: its settings lie in the run's folder, above it."""
    above = folder.resolve().parent.parent
    stage: Stage = next((one for one in STAGES if one == above.name), "final")
    run = above if stage == "final" else above.parent
    study = study_at(_study_of_run(folder, run), stage)
    file = folder / _CHECKPOINT_FILES[0]
    try:
        expected = weights_like(study)
        content = read_bounded(file, most_bytes(expected))
        check_header(content, expected)
        found: Weights = load(content)
        weights = {name: found[name] for name in expected}
        check_weights(weights, expected)
    except (OSError, SafetensorError, UpdateError, ConfigError) as error:
        raise InputError(f"{file}: is no whole network of study {study.name}: {reason(error)}") from None
    sites = tuple(sorted(_sites_of(folder / _CHECKPOINT_FILES[1]) - {POOLED}))
    digest = hashlib.sha256(content).hexdigest()
    return Source(folder, "checkpoint", weights, digest, study, study.inputs.network_channels, sites)


def _sites_of(file: Path) -> set[str]:
    """The sites that a checkpoint's state names."""
    sites = read_mapping(file).get("sites")
    names = [one.get("name") if isinstance(one, dict) else None for one in sites] if isinstance(sites, list) else [None]
    told = {name for name in names if isinstance(name, str) and re.fullmatch(NAME, name)}
    if len(told) < len(names):
        raise InputError(f"{file}: does not name the sites that trained it; it is damaged: name another checkpoint")
    return told


def _study_of_run(folder: Path, run: Path) -> StudyConfig:
    file = next((run / name for name in _SETTINGS_FILES if (run / name).is_file()), None)
    if file is None:
        raise InputError(
            f"{folder}: no settings of its study lie in {run} ({' or '.join(_SETTINGS_FILES)}); name a checkpoint "
            "where its run left it"
        )
    content = read_mapping(file)
    return validate(StudyConfig, content.get("study", content), str(file))


def _bundle(folder: Path) -> Source:
    """A bundle's `models/model.pt`, and what its metadata says of the input's channels."""
    file = folder / BUNDLE_WEIGHTS
    try:
        metadata = parse_json((folder / METADATA).read_bytes(), str(folder / METADATA))
    except OSError as error:
        raise InputError(f"{folder / METADATA}: {reason(error)}") from None
    weights = {
        name: value.detach().float().numpy() for name, value in read_state(file).items() if value.is_floating_point()
    }
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Source(folder, "MONAI bundle", weights, digest, None, _channels_of(metadata, folder / METADATA))


def read_state(file: Path) -> Mapping[str, torch.Tensor]:
    """A network's state out of a file of PyTorch's; nothing in it is run.

    Raises:
        InputError: it is missing, too large, not of weights alone, or holds something else.
    """
    try:
        if file.exists() and not file.is_file() and not file.is_dir():
            raise InputError(f"{file}: expected a file, found a pipe or a device; correct its name")
        if file.stat().st_size > MOST_BUNDLE:
            raise InputError(f"{file}: expected at most {MOST_BUNDLE} bytes, found more; correct its name")
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file}: {reason(error)}") from None
    except Exception as error:  # an unpickler of others: of a file that is none it raises anything
        raise InputError(
            f"{file}: expected a network's state (`network.state_dict()`) as PyTorch saves it, and "
            f"nothing that would have to be run: {type(error).__name__}"
        ) from None
    for key in _WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in found.items())
    ):
        raise InputError(f"{file}: expected arrays by name, found {type(found).__name__} of other things")
    for name, value in found.items():
        if (told := _not_plain(value)) is not None:
            raise InputError(f"{file}: {name}: expected a dense array of numbers, found {told}; save it as one")
    return found


def _not_plain(value: torch.Tensor) -> str | None:
    """What is odd about an array: one can claim more values than its file holds, or hold none at all."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
        return "another kind"
    num_bytes = value.numel() * max(value.element_size(), 4)  # as float32, too
    return f"one of {num_bytes} bytes" if num_bytes > MOST_BUNDLE else None


def plain_name(channel: str) -> str:
    """A contrast's name as MONAI's bundles and BIDS both may spell it."""
    return channel.lower().removesuffix("w")


def _channels_of(metadata: Any, file: Path) -> tuple[str, ...]:
    """What a bundle's input shows; numbers where it does not say."""
    try:
        image = metadata["network_data_format"]["inputs"]["image"]
        count = int(image["num_channels"])
        told = image.get("channel_def") or {}
        channels = tuple(str(told.get(str(number), number)) for number in range(min(count, 64)))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
    plain = [plain_name(one) for one in channels]
    if twice := next((one for one in channels if plain.count(plain_name(one)) > 1), None):
        raise InputError(f"{file}: channel_def names {twice} twice; say what each input channel shows")
    return channels

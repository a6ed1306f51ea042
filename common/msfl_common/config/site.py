"""`site.yaml`: a hospital's data, devices and policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from msfl_common.config.base import (
    Frozen,
    Name,
    Preprocessed,
    Task,
    validate,
)
from msfl_common.config.classification import MODEL_KINDS
from msfl_common.config.former_keys import former_keys_of_site, renewed_site
from msfl_common.config.ledger import KeepContent
from msfl_common.config.message_kinds import KindName, allowed_by_default
from msfl_common.config.secrets import Secret, refuse_variables
from msfl_common.config.secure_aggregation import POOLED
from msfl_common.config.spelling import HomePath, no_such, spelled
from msfl_common.errors import ConfigError
from msfl_common.feature_models.registry import SOLVABLE
from msfl_common.metrics.metric import OUTCOME_TASKS
from msfl_common.system.files import unfollowed, unwritable
from msfl_common.system.reading import read_yaml

SITE_FILE = "site.yaml"
_SHORT = {"f": "female", "m": "male"}
_DEVICE = r"auto|cpu|mps|cuda(:\d+)?"
_DEVICES = "auto, cpu, mps, cuda, cuda:N"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
Hours = Annotated[str, spelled(f"{_CLOCK}-{_CLOCK}", 'a window such as "19:00-07:00", quoted, from 00:00 to 23:59')]


class Policy(Frozen):
    """What a site allows; it wins over whatever a study asks."""

    tasks: tuple[Task, ...] = Field(("lesion-segmentation",), description="tasks the site takes part in")
    allow: tuple[KindName, ...] = Field(
        default_factory=allowed_by_default, description="message kinds that may leave the site"
    )
    refuse_models: tuple[str, ...] = Field(
        SOLVABLE,
        description="kinds of outcome model refused: a hostile coordinator can read rows of patients out of them",
    )
    min_patients: int = Field(5, ge=1, description="fewest patients behind any update or figure that leaves the site")
    max_epsilon: float | None = Field(
        None,
        gt=0,
        description="most that all studies with differential privacy together may spend on any one patient, at a "
        "study's delta; with it, a study without such privacy is refused; null: no limit",
        exclude_if=lambda value: value is None,
    )
    require_masks: bool = Field(
        False,
        description="true: updates, sums and metrics leave under masks alone, so that the coordinator never sees this "
        "site's by themselves",
    )
    min_sites_in_sum: int = Field(
        3,
        ge=2,
        description="fewest sites of a masked sum that this site helps to open; in a sum of two each learns the "
        "other's value",
    )
    max_rounds: int = Field(1000, ge=1, description="most rounds of a study the site takes part in")
    max_steps_per_round: int = Field(10_000, ge=1, description="most optimiser steps in one round")
    max_memory_gb: float | None = Field(
        None, gt=0, description="most memory that a batch may take, GB, by the study's settings; null: the device's"
    )
    max_device_hours_per_day: float | None = Field(
        None, gt=0, description="hours of training and validation a day, summed over devices; null: no limit"
    )
    max_release: float | None = Field(
        0.5,
        gt=0,
        description="most numbers that sums may tell about values of patients, over all studies, as a share of these "
        "values (inputs times cases); null: counted alone",
    )
    max_evaluations: int = Field(
        20, ge=1, description="how often a patient may be measured by models of features, over all studies"
    )
    keep_content: KeepContent | None = Field(
        None,
        description="keep what leaves, encrypted to the data protection officer's key; null: its fingerprint alone",
    )

    @field_validator("refuse_models")
    @classmethod
    def _known_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(MODEL_KINDS)):
            raise ValueError(no_such("kind of model", unknown, MODEL_KINDS))
        return value


class Words(Frozen):
    """What the words of the site's own tables mean, beside those that are known: female, f, male, m, yes, no, 1, 0."""

    sex: Mapping[str, Literal["female", "male"]] = Field(
        default_factory=dict, description="word to female or male: {W: female, 1: male}"
    )
    treated: Mapping[str, Literal["yes", "no"]] = Field(
        default_factory=dict, description="word to yes or no: {ja: yes, nein: no}"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """YAML reads 1 as a number, and yes and no as true and false."""
        if not isinstance(value, Mapping):
            return value
        meanings = {word: _yaml_word(meaning).lower() for word, meaning in value.items()}
        return {_yaml_word(word): _SHORT.get(meaning, meaning) for word, meaning in meanings.items()}

    def __hash__(self) -> int:
        return hash(tuple((column, *sorted(words.items())) for column, words in self.of_columns.items()))

    @property
    def of_columns(self) -> Mapping[str, Mapping[str, str]]:
        """Column to word to meaning."""
        return {"sex": self.sex, "treated": self.treated}


class SiteConfig(Frozen):
    """A hospital's own file; it never leaves the hospital."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    name: Name = Field(description="the site's name in the study")
    data: tuple[HomePath, ...] = Field(min_length=1, description="one BIDS folder, or several; relative to this file")
    same_ids: Literal["one-person", "different-people"] = Field(
        "one-person",
        description="what one participant_id in several folders of `data` means; one person is never trained on in one "
        "folder and tested on in another, and counts once",
    )
    words: Words = Words()
    masks: Name = Field("lesions", description="folder under derivatives/ that holds the manual lesion masks")
    preprocessed: Literal["auto"] | Preprocessed = Field(
        "auto",
        description="what the images are: none (not skull-stripped), brain (skull-stripped, N4-corrected), common-space"
        " (and on MNI152); auto looks at each case",
    )
    state: HomePath = Field(description="folder for cache, ledger and log, relative to this file; created when missing")
    own_model: HomePath | None = Field(
        None,
        description="folder of a model of lesions of this site's own, such as one of `msfl-client gain`, which a study "
        "that measures a model may have measured beside it, where `policy.allow` has local_baseline; null: none",
        exclude_if=lambda value: value is None,
    )
    device: str | tuple[str, ...] = Field(
        "auto",
        description="auto (cuda, then mps, then cpu), cpu, mps, cuda, cuda:N, or several GPUs: [cuda:0, cuda:1]",
    )
    gpu_memory_fraction: float = Field(1.0, gt=0, le=1, description="share of each GPU's memory that may be taken")
    hours: tuple[Hours, ...] = Field(
        (), description='when the site trains and validates, local time: "19:00-07:00" or a list; empty: always'
    )
    kit: HomePath = Field(Path("kit"), description="folder of the coordinator's joining kit, relative to this file")
    key: HomePath = Field(Path("site.key"), description="the site's private key, relative to this file")
    key_passphrase: Secret | None = Field(
        None,
        description="file of mode 0600 with the passphrase of `key`, or ${NAME}, an environment variable that holds "
        "it; null: none, a systemd credential, or typed",
    )
    policy: Policy = Policy()

    @property
    def one_person(self) -> bool:
        """Whether an id in several folders is one person's."""
        return self.same_ids == "one-person"

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, value: Any) -> Any:
        return renewed_site(value)

    @field_validator("name")
    @classmethod
    def _of_one_site(cls, value: str) -> str:
        if value == POOLED:
            raise ValueError(f"{POOLED} stands for all sites together in a run's figures; choose another name")
        return value

    @field_validator("masks", mode="before")
    @classmethod
    def _a_name_of_a_folder(cls, value: Any) -> Any:
        if isinstance(value, str) and "/" in value:
            name = Path(value).name
            raise ValueError(
                f"expected the name of a folder under derivatives/ of the data, such as {name}, not a path"
            )
        return value

    @field_validator("data", "hours", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("hours")
    @classmethod
    def _hours_have_a_length(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(window[:5] == window[6:] for window in value):
            raise ValueError("a window ends when it starts; leave `hours` out to compute at any time")
        return value

    @field_validator("device")
    @classmethod
    def _one_device_or_several_gpus(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """A list names different GPUs or, to try it out, `cpu` as often as there shall be processes."""
        different_gpus = len(set(value)) == len(value) and all(re.fullmatch(r"cuda:\d+", name) for name in value)
        several = len(value) > 0 and (different_gpus or set(value) == {"cpu"})
        if not (re.fullmatch(_DEVICE, value) if isinstance(value, str) else several):
            raise ValueError(f"expected {_DEVICES} or a list of different GPUs: [cuda:0, cuda:1]")
        return value


def _yaml_word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def known_device(name: str) -> str:
    """The name of one device, whether it is there or not.

    Raises:
        ValueError: there is no such kind of device.
    """
    if re.fullmatch(_DEVICE, name) is None:
        raise ValueError(f"expected {_DEVICES}")
    return name


def load_site(path: Path) -> SiteConfig:
    """Read a site's file, or the `site.yaml` of its folder; relative paths are taken from the file's own folder.

    Raises:
        ConfigError, PrivateFolderError: the file is missing, no YAML, not valid, or other accounts may change it.
    """
    path = path / SITE_FILE if path.is_dir() else path
    if not path.exists():
        raise ConfigError(str(path), ["no such file; name the site's file, or make one with `msfl-client init`"])
    content = read_yaml(unwritable(path))
    if "data" not in content and {"task", "inputs", "rounds", "training"} & set(content):
        raise ConfigError(str(path), ["is a study's file; name the site's, such as site.yaml"])
    refuse_variables(content, str(path), "key_passphrase")
    if faults := former_keys_of_site(content):
        raise ConfigError(str(path), faults)
    site = validate(SiteConfig, content, str(path))
    base, policy, passphrase = path.resolve().parent, site.policy, site.key_passphrase
    if keep := policy.keep_content:
        keep = keep.model_copy(update={"public_key": (base / keep.public_key).resolve()})
        policy = policy.model_copy(update={"keep_content": keep})
    data, state = tuple((base / folder).resolve() for folder in site.data), unfollowed(base, site.state)
    for folder in data:
        inside = state.resolve().relative_to(folder).parts if state.resolve().is_relative_to(folder) else ("",)
        if not inside or inside[0].startswith(("sub-", "sourcedata", "phenotype")):
            raise ConfigError(str(path), [f"state: lies in the raw data, {folder}; name a folder outside of it"])
    return site.model_copy(
        update={
            "policy": policy,
            "data": data,
            "state": state,
            "own_model": None if site.own_model is None else (base / site.own_model).resolve(),
            "kit": unfollowed(base, site.kit),
            "key": (base / site.key).resolve(),
            "key_passphrase": (base / passphrase).resolve() if isinstance(passphrase, Path) else passphrase,
        }
    )


def unused_by_site(site: SiteConfig) -> list[str]:
    """What to tell a person of a site's settings that differ from their defaults and do not apply: a line each."""
    lines = []
    devices = (site.device,) if isinstance(site.device, str) else site.device
    if site.gpu_memory_fraction < 1 and not any(name == "auto" or name.startswith("cuda") for name in devices):
        lines.append(
            f"gpu_memory_fraction: {site.gpu_memory_fraction:g} has no effect: on {devices[0]} there is no GPU"
        )
    default = Policy.model_fields["refuse_models"].default
    if OUTCOME_TASKS.isdisjoint(site.policy.tasks) and site.policy.refuse_models != default:
        lines.append("policy.refuse_models: has no effect: `policy.tasks` names neither classification nor regression")
    return lines

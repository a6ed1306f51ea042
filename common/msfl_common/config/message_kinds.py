"""The one table of what may leave a site, and of the requests that it is sent for.

From `KINDS` a site's policy takes what it may allow, the gateway what it checks, and the ledger's page and the page for
hospital IT what they say of it. From `REQUESTS` the site's app takes what it answers, in simulation and deployment
alike, its connection what it accepts, and the register of answers what counts.

To add a kind: its line here, and its handler in `msfl_client.rounds.handlers` (docs/how-to/add-a-message-kind.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator

from msfl_common.config.baselines import BASELINE_METRICS
from msfl_common.config.spelling import no_such
from msfl_common.config.study import StudyConfig
from msfl_common.config.survey_tables import MOST_PATIENTS, TABLES

# Steps of a study beside training and validation, by the name that their requests and answers are counted under.
SEGMENTATION: Final = "segmentation"  # hands out the model of the stage before
MOMENTS: Final = "moments"
RESIDUALS: Final = "residuals"
REFERENCE: Final = "reference"
SURVEY: Final = "survey"  # counts and histograms, before anything is trained
LOCAL_BASELINE: Final = "local_baseline"  # a model of each site alone, after the last round
VALIDATION: Final = "validation"
TEST: Final = "test"  # the same request as a validation, of other patients
MASK_KEY: Final = "mask_key"  # asks for a site's public key of secure aggregation
ROSTER: Final = "roster"  # hands out who takes part in it
OPENING: Final = "opening"  # asks for shares, so that a sum is opened


def _compares(study: StudyConfig) -> bool:
    return study.baselines.local


def _never(_: StudyConfig) -> bool:
    return False


def _always(_: StudyConfig) -> bool:
    return True


def _trains(study: StudyConfig) -> bool:
    return study.evaluate is None


def _masks(study: StudyConfig) -> bool:
    return study.secure_aggregation.method == "masks"


def _trains_masked(study: StudyConfig) -> bool:
    return _trains(study) and _masks(study)


def _makes_reference(study: StudyConfig) -> bool:
    return _trains(study) and study.harmonization.method != "none"


@dataclass(frozen=True)
class FigureArray:
    """An array of a kind that holds figures alone.

    Attributes:
        shape: its shape, always the same.
        low: smallest value in it.
        high: largest value in it.
        whole: whether its values are whole numbers, as counts are.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True)
class MessageKind:
    """A kind of message that may leave a site.

    Attributes:
        title: its name in plain words.
        holds: what is in it, in plain words.
        by_default: whether a policy that does not list what it allows lets it leave.
        of_patients: whether each such message rests on patients, and so on no fewer than the floor; a kind without that
            says nothing of patients where they are too few.
        asked_by: whether a study asks for it.
        figures: of a kind that holds figures alone, its arrays: `messages.figures` packs it, and checks it on both
            sides. None of one that has a module of its own in `messages`.
    """

    title: str
    holds: str
    by_default: bool
    of_patients: bool = True
    asked_by: Callable[[StudyConfig], bool] = _never
    figures: Mapping[str, FigureArray] | None = None


@dataclass(frozen=True)
class Request:
    """A request that a site answers.

    Attributes:
        answer: the kind of message that it is answered with.
        words: what it is for, in plain words.
        counted_as: under what its answers are counted, each round being answered once; None where nothing is counted.
        is_once: whether it is answered once in a study, not once a round.
    """

    answer: str
    words: str
    counted_as: str | None = None
    is_once: bool = False


# In this order a policy that says nothing names them, and the SHA-256 of a policy in each line of a ledger is of it.
KINDS: dict[str, MessageKind] = {
    "model_update": MessageKind(
        "model update", "weights or sums of a model, trained on the site's cases", by_default=True, asked_by=_trains
    ),
    "validation_metrics": MessageKind(
        "metrics",
        "aggregate figures of how good the shared model is at the site, and of how many patients",
        by_default=True,
        asked_by=_always,
    ),
    "harmonization_sums": MessageKind(
        "harmonization sums",
        "sums over the site's cases that make scanners comparable",
        by_default=False,
        asked_by=_makes_reference,
    ),
    "node_facts": MessageKind(
        "node facts",
        "version, and the number of training cases rounded down",
        by_default=True,
        of_patients=False,
        asked_by=_always,
    ),
    "ledger_head": MessageKind(
        "end of the ledger",
        "beside another message: number, hash and signature of its line in the ledger",
        by_default=True,
        of_patients=False,
    ),
    "survey": MessageKind(
        "survey",
        "how many patients have which contrasts, masks and visits, and histograms of age, EDSS, lesion load and, of an "
        "image of each, voxel, size and intensity of lesions: each number rounded down to a multiple of the floor",
        by_default=False,
        figures={
            name: FigureArray((len(cells),), low=0, high=MOST_PATIENTS, whole=True) for name, cells in TABLES.items()
        },
    ),
    LOCAL_BASELINE: MessageKind(
        "local-only baseline",
        "aggregate figures of a model trained at this site alone, and of how the shared one differs in the same cases",
        by_default=False,
        asked_by=_compares,
        figures={name: FigureArray((2, 4), low=-MOST_PATIENTS, high=MOST_PATIENTS) for name in BASELINE_METRICS},
    ),
    "mask_key": MessageKind(
        "key for masks",
        "public key of the site for this study's masks, signed by its registered key",
        by_default=True,
        of_patients=False,
        asked_by=_masks,
    ),
    "masked_update": MessageKind(
        "masked model update",
        "a model update under masks: nobody can read it, only a sum of at least so many sites as the policy says",
        by_default=True,
        asked_by=_trains_masked,
    ),
    "masked_sums": MessageKind(
        "masked sums",
        "metrics, sums of a harmonization, or a survey, under masks: nobody can read them, only a sum of at least so "
        "many sites as the policy says",
        by_default=True,
        asked_by=_masks,
    ),
    "unmask_shares": MessageKind(
        "shares that open a sum",
        "shares of the masks of one sum of named sites; they tell the sum, and nothing of a site",
        by_default=True,
        of_patients=False,
        asked_by=_masks,
    ),
}

# By Flower's name of the message type: `query`, `train` or `evaluate`, and after a dot what of it.
REQUESTS: dict[str, Request] = {
    "query": Request("node_facts", "who is there"),
    f"query.{SEGMENTATION}": Request("node_facts", "model of lesions taken", SEGMENTATION, is_once=True),
    f"query.{MOMENTS}": Request("harmonization_sums", "first sums of the harmonization", MOMENTS, is_once=True),
    f"query.{RESIDUALS}": Request("harmonization_sums", "second sums of the harmonization", RESIDUALS, is_once=True),
    f"query.{REFERENCE}": Request("node_facts", "reference of the harmonization taken", REFERENCE, is_once=True),
    "train": Request("model_update", "training", "train"),
    "evaluate": Request("validation_metrics", "validation", VALIDATION),
    f"query.{SURVEY}": Request("survey", "survey before training", SURVEY, is_once=True),
    f"query.{LOCAL_BASELINE}": Request(
        LOCAL_BASELINE, "local-only baseline after the last round", LOCAL_BASELINE, is_once=True
    ),
    f"query.{MASK_KEY}": Request("mask_key", "key for masks"),
    f"query.{ROSTER}": Request("node_facts", "roster of the sums taken"),
    f"query.{OPENING}": Request("unmask_shares", "opening of a sum"),
}


def is_once(purpose: str) -> bool:
    """Whether what is counted under this name is answered once in a study."""
    return purpose == TEST or any(one.is_once for one in REQUESTS.values() if one.counted_as == purpose)


# Under which kind of masks each kind of figures leaves; of these, a policy and a study ask for both.
MASKED_AS = {
    "model_update": "masked_update",
    "validation_metrics": "masked_sums",
    "harmonization_sums": "masked_sums",
    "survey": "masked_sums",
}


def words_of(purpose: str) -> str:
    """What is counted under this name, in plain words."""
    return next((one.words for one in REQUESTS.values() if one.counted_as == purpose), purpose)


def allowed_by_default() -> tuple[str, ...]:
    """The kinds that a policy allows where it lists none."""
    return tuple(name for name, kind in KINDS.items() if kind.by_default)


def asked_for(study: StudyConfig) -> tuple[str, ...]:
    """The kinds that a study asks a site for."""
    return tuple(name for name, kind in KINDS.items() if kind.asked_by(study))


def _known(name: str) -> str:
    if name not in KINDS:
        raise ValueError(no_such("kind of message", [name], tuple(KINDS)))
    return name


KindName = Annotated[str, AfterValidator(_known)]

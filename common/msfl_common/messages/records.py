"""Everything that crosses the wire, and the only place that builds or reads a Flower record.

The coordinator sends a `RoundTask` with the current weights. A site answers with one of the message kinds of
`config.message_kinds`, or with a `Refusal`: a code from a fixed list and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from msfl_common.config.classification import Split
from msfl_common.config.message_kinds import REFERENCE, SURVEY, TEST, VALIDATION, Request, is_once
from msfl_common.config.spelling import NAME
from msfl_common.config.stages import Stage, is_measured_apart, stages_of, study_at
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import Code, ConfigError, UpdateError
from msfl_common.messages.arrays import ARRAYS, pack_weights, unpack_floats, unpack_weights
from msfl_common.messages.ledger import BESIDE
from msfl_common.messages.validation_metrics import ValidationMetrics as ValidationMetrics
from msfl_common.messages.validation_metrics import array_shapes, check_metrics, estimate_of, flat_numbers, number_names
from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD
from msfl_common.models.weights import Weights
from msfl_common.system.checked_numbers import MOST_LOSS, MOST_SECONDS, finite_number, number_within, whole_number

TASK, METRICS, FACTS, REFUSAL = "task", "metrics", "facts", "refusal"
STUDY, STAGE, ROUND, SPLIT, THRESHOLD, SLOPES = "study", "stage", "round", "split", "threshold", "slopes"
NUM_CASES = "num-examples"  # the name under which Flower's strategies look for a site's weight
NUM_SCANNERS = "num_scanners"
TRAIN_LOSS, SECONDS = "train_loss", "seconds"

_VERSION = r"[0-9A-Za-z.+-]{1,40}"
Content = RecordDict  # what a message holds, for modules that only hand it on


@dataclass(frozen=True)
class Description:
    """What is written down of a message before it leaves: never what it holds.

    Attributes:
        numbers: names of all single values.
        num_bytes: size of names and values.
        sha256: of names and values, in the order of the records' names.
    """

    numbers: list[str]
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class RoundTask:
    """What the coordinator asks of a site: round `round` (from 1) of `study`.

    Attributes:
        study: the whole of it, the same in every request.
        split: which patients to measure: validation or, after the last round, test. A segmentation may keep no patients
            for it; where it hands out the model of its best round, or measures a trained one, a test is then of that
            one, on validation patients.
        threshold: of a classification, the last of two classes from this probability on.
        stage: of a study that segments before it classifies, which of them.
    """

    study: StudyConfig
    round: int
    split: Split = "validation"
    threshold: float = DEFAULT_THRESHOLD
    stage: Stage = "final"

    @property
    def settings(self) -> StudyConfig:
        """The study of this stage."""
        return study_at(self.study, self.stage)

    @property
    def is_last(self) -> bool:
        """Whether nothing is asked of the sites after these patients are measured."""
        return self.stage == "final" and self.is_handed_out

    @property
    def is_handed_out(self) -> bool:
        """Whether the weights to measure are those of the model that is handed out."""
        if is_measured_apart(self.settings):
            return self.split == "test"
        return self.round == self.settings.rounds.num_rounds


@dataclass(frozen=True)
class ModelUpdate:
    """A site's new weights after one round."""

    weights: Weights
    num_cases: int
    train_loss: float
    seconds: float


@dataclass(frozen=True)
class NodeFacts:
    """What the coordinator learns of a site before the first round."""

    site: str
    version: str
    cases_at_least: int


@dataclass(frozen=True)
class Refusal:
    """A site's answer when it cannot or will not do what was asked; `site` is its name in the study."""

    code: Code
    site: str = ""


def pack_task(task: RoundTask, weights: Weights | None = None) -> RecordDict:
    """The coordinator's request; without weights it asks for node facts."""
    config = ConfigRecord({STUDY: task.study.model_dump_json(), ROUND: task.round})
    if task.study.classification is not None or task.split == "test":
        config[SPLIT], config[THRESHOLD] = task.split, task.threshold
    if task.study.segmentation is not None:
        config[STAGE] = task.stage
    content = RecordDict({TASK: config})
    if weights is not None:
        content[ARRAYS] = pack_weights(weights)
    return content


def unpack_task(content: RecordDict) -> RoundTask:
    """Read and validate a request at the site.

    Raises:
        ConfigError: it is no request of ours, or its study does not validate.
    """
    config = content.config_records.get(TASK, ConfigRecord())
    study, number = config.get(STUDY), config.get(ROUND)
    if not isinstance(study, str) or not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ConfigError("request", ["expected a study, and the number of a round"])
    split, threshold = config.get(SPLIT, "validation"), config.get(THRESHOLD, DEFAULT_THRESHOLD)
    if split not in ("validation", "test") or not isinstance(threshold, float) or not 0 <= threshold <= 1:
        raise ConfigError("request", ["expected a split, validation or test, and a threshold from 0 to 1"])
    if split == "validation" and threshold != DEFAULT_THRESHOLD:
        raise ConfigError("request", [f"expected the threshold {DEFAULT_THRESHOLD} in validation; test has another"])
    read, stage = parse_study(study), config.get(STAGE, "final")
    named = next((one for one in stages_of(read) if one == stage), None)
    if named is None:
        raise ConfigError("request", [f"expected a stage of the study, {' or '.join(stages_of(read))}"])
    return RoundTask(
        read,
        number,
        "test" if split == "test" else "validation",
        threshold,
        named,
    )


def unpack_task_weights(content: RecordDict, expected: Weights) -> Weights:
    """The weights of a request, checked against the study's network.

    Raises:
        UpdateError: they do not fit.
    """
    return unpack_weights(content, expected, consume=False)


def pack_update(update: ModelUpdate) -> RecordDict:
    """A model update as Flower's strategies expect it: arrays, and metrics with the case count."""
    numbers = MetricRecord({NUM_CASES: update.num_cases, TRAIN_LOSS: update.train_loss, SECONDS: update.seconds})
    return RecordDict({ARRAYS: pack_weights(update.weights), METRICS: numbers})


def unpack_update(content: RecordDict, expected: Weights) -> ModelUpdate:
    """Read a site's update, refusing whatever must not be aggregated; the message is empty afterwards.

    Raises:
        UpdateError: records, names, shapes, types, sizes or values are not as declared.
    """
    numbers = exactly(content, {ARRAYS, METRICS}, {NUM_CASES, TRAIN_LOSS, SECONDS})
    num_cases = whole_number(NUM_CASES, numbers[NUM_CASES])
    loss = number_within(TRAIN_LOSS, numbers[TRAIN_LOSS], -MOST_LOSS, MOST_LOSS)
    seconds = number_within(SECONDS, numbers[SECONDS], 0.0, MOST_SECONDS)
    return ModelUpdate(unpack_weights(content, expected, consume=True), num_cases, loss, seconds)


def pack_metrics(metrics: ValidationMetrics) -> RecordDict:
    """Aggregate metrics as flat numbers `dsc.mean`, `dsc.ci95_low`, ..."""
    numbers = {NUM_CASES: metrics.num_cases, SECONDS: metrics.seconds, **flat_numbers(metrics.estimates)}
    content = RecordDict({METRICS: MetricRecord({**numbers})})
    if metrics.arrays:
        content[ARRAYS] = ArrayRecord({name: Array(value) for name, value in metrics.arrays.items()})
    return content


def unpack_metrics(
    content: RecordDict, names: frozenset[str], num_classes: int = 0, min_patients: int = 1
) -> ValidationMetrics:
    """Read a site's metrics.

    Args:
        content: the message.
        names: the metrics that the study knows.
        num_classes: of a classification, which sends score bins and a confusion matrix; 1 of a regression, which sends
            moments; 0 of a segmentation.
        min_patients: fewest cases of a score bin, as it is of so many patients or more.

    Raises:
        UpdateError: an unknown metric, a missing field, a value that is not finite, or arrays that no site may send.
    """
    allowed = number_names(names) | {NUM_CASES, SECONDS}
    known = set(content.metric_records.get(METRICS, MetricRecord())) & allowed | {NUM_CASES, SECONDS}
    numbers = exactly(content, {METRICS, ARRAYS} if num_classes else {METRICS}, known)
    num_cases = whole_number(NUM_CASES, numbers.pop(NUM_CASES))
    seconds = number_within(SECONDS, numbers.pop(SECONDS), 0.0, MOST_SECONDS)
    arrays = unpack_floats(content, array_shapes(num_classes)) if num_classes else {}
    estimates = {name: estimate_of(numbers, name) for name in sorted({name.rsplit(".", 1)[0] for name in numbers})}
    bins, confusion, moments = (arrays.get(name) for name in ("cells", "confusion", "moments"))
    metrics = ValidationMetrics(estimates, num_cases, seconds, bins, confusion, moments=moments)
    check_metrics(metrics, min_patients)
    return metrics


def pack_facts(facts: NodeFacts) -> RecordDict:
    """Node facts."""
    return RecordDict(
        {FACTS: ConfigRecord({"site": facts.site, "version": facts.version, "cases_at_least": facts.cases_at_least})}
    )


def unpack_facts(content: RecordDict) -> NodeFacts:
    """Read node facts.

    Raises:
        UpdateError: they are not as declared.
    """
    record = content.config_records.get(FACTS)
    if record is None or set(content) != {FACTS} or set(record) != {"site", "version", "cases_at_least"}:
        raise UpdateError("expected node facts")
    site, version = record["site"], record["version"]
    if not isinstance(site, str) or not re.fullmatch(NAME, site):
        raise UpdateError("site: expected a name of letters, digits, dot, dash and underscore")
    if not isinstance(version, str) or not re.fullmatch(_VERSION, version):
        raise UpdateError("version: expected one")
    return NodeFacts(site, version, whole_number("cases_at_least", record["cases_at_least"], least=0))


def pack_refusal(refusal: Refusal) -> RecordDict:
    """A refusal: the code and the site's name."""
    return RecordDict({REFUSAL: ConfigRecord({"code": refusal.code.value, "site": refusal.site})})


def unpack_refusal(content: RecordDict) -> Refusal | None:
    """The refusal in a reply, or None when the reply is something else."""
    record = content.config_records.get(REFUSAL)
    if record is None:
        return None
    try:
        code = Code(str(record.get("code"))[:64])
    except ValueError:
        code = Code.INTERNAL
    site = record.get("site")
    return Refusal(code, site if isinstance(site, str) and re.fullmatch(NAME, site) else "")


def describe(content: Content) -> Description:
    """Names, size and digest of a message; a head or receipt beside it is no part of it."""
    numbers, chunks = _named(content)
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return Description(sorted(numbers), sum(map(len, chunks)), digest.hexdigest())


def size_of(content: Content) -> int:
    """The bytes of `describe`, without the work of its digest."""
    return sum(map(len, _named(content)[1]))


def _named(content: Content) -> tuple[list[str], list[bytes]]:
    """Names of all single values, and names and values of everything, in order."""
    numbers: list[str] = []
    chunks: list[bytes] = []
    for record_name, record in sorted(content.array_records.items()):
        for name, array in record.items():
            chunks += [f"{record_name}/{name}=".encode(), array.data]
    singles: dict[str, MetricRecord | ConfigRecord] = {**content.metric_records, **content.config_records}
    for record_name, values in sorted(singles.items()):
        if record_name in BESIDE:
            continue
        for name, value in values.items():
            numbers.append(name)
            as_bytes = value if isinstance(value, bytes) else repr(value).encode()
            chunks += [f"{record_name}/{name}=".encode(), as_bytes]
    return numbers, chunks


def payload_sha256(content: Content) -> str:
    """Digest of what a request brings beside its study: its arrays, and a reference; with other ones it is another."""
    task = content.config_records.get(TASK, ConfigRecord())
    pieces = [str(task.get(REFERENCE, "")).encode()]
    for record_name, record in sorted(content.array_records.items()):
        for name, array in record.items():
            pieces += [f"{record_name}/{name} {array.dtype} {array.shape} {array.stype}".encode(), array.data]
    digest = hashlib.sha256()
    for piece in pieces:  # with their lengths: no two lists of pieces give one stream of bytes
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return digest.hexdigest()


def purpose_of(asked: Request, task: RoundTask) -> str | None:
    """Under what the answers to a request are counted; None where nothing is counted."""
    if asked.counted_as == VALIDATION and task.split == "test" and is_measured_apart(task.settings):
        return TEST  # any other segmentation has no patients for it, and validates whatever it is asked
    return asked.counted_as


def request_sha256(purpose: str, task: RoundTask, request: RecordDict) -> str:
    """Digest of all that an answer follows from; how long is waited for whom is not part of it.

    Only training looks at the number of rounds: its rate falls over all of them. A survey looks at no settings but the
    fewest patients, so that a study that is changed by what it told may be surveyed again.
    """
    number = 0 if is_once(purpose) else task.round
    num_rounds = task.settings.rounds.num_rounds if purpose == "train" else 0
    of_survey = {"name", "min_patients"} if purpose == SURVEY else None
    settings = task.study.model_dump_json(include=of_survey, exclude={"rounds", "segmentation"})
    said = [purpose, task.stage, number, num_rounds, task.threshold, settings, payload_sha256(request)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def exactly(content: RecordDict, records: set[str], names: set[str]) -> dict[str, float]:
    """The numbers of a message, which holds these records and numbers and no others.

    Raises:
        UpdateError: it does not.
    """
    record = content.metric_records.get(METRICS)
    if record is None or set(content) != records:
        raise UpdateError(f"expected the records {sorted(records)}, found {len(content)} or other ones")
    if set(record) != names:
        missing = sorted(names - set(record))[:3]
        raise UpdateError(f"expected {len(names)} numbers, found {len(record)}; missing are {missing or 'none'}")
    return {name: finite_number(name, record[name]) for name in sorted(names)}

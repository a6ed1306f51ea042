"""A coordinator that asks anything: mutated requests to the real app of one site, and what is wrong with it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code
from msfl_common.harmonization import Reference, column_names
from msfl_common.messages.harmonization import pack_reference_task, pack_slopes_task
from msfl_common.messages.records import ARRAYS, METRICS, TASK, RoundTask, pack_task, unpack_refusal
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulation.grid import InProcessGrid
from tests.attacks.mutations import HOSTILE, mutate, mutated_bytes, mutated_json
from tests.conftest import BidsSite, tiny_settings

MARKER = "sub-planted"
NAMES = tuple(FEATURES)[:4]
ALL = ("model_update", "validation_metrics", "harmonization_sums", "node_facts")
# An honest site's own answer, or one of the fixed codes. INTERNAL stands for an error that nobody foresaw.
LAWFUL = (({"facts"}), ({ARRAYS, METRICS}), ({METRICS}), ({"refusal"}))


def make_target(folder: Path, cases: int = 5, patients: int = 30) -> SiteConfig:
    """A site with images of some patients, and tables and features of more."""
    root = folder / "bids"
    root.mkdir(parents=True)
    site = BidsSite(root)
    for number in range(cases):
        site.add(f"{MARKER}{number}")
    rng = np.random.default_rng(0)
    people = ["participant_id\tage\tsex\tscanner\tcourse"]
    features = ["\t".join(("participant_id", "scanner", *NAMES))]
    for number in range(patients):
        name, scanner, values = f"{MARKER}{number}", "ab"[number % 2], rng.normal(700, 60, len(NAMES))
        people.append(f"{name}\t{rng.uniform(20, 60):.1f}\t{'FM'[number // 2 % 2]}\t{scanner}\tc{number // 4 % 2}")
        features.append("\t".join((name, scanner, *(f"{value:.4f}" for value in values))))
    (root / "participants.tsv").write_text("\n".join(people) + "\n")
    (root / "features").mkdir()
    (root / "features" / "features.tsv").write_text("\n".join(features) + "\n")
    policy = Policy(
        tasks=("lesion-segmentation", "classification"),
        allow=ALL,
        min_patients=1,
        max_rounds=500,
        max_steps_per_round=4,
        max_memory_gb=0.1,
        refuse_models=(),
    )
    return SiteConfig(name="here", data=(root,), state=folder / "state", device="cpu", policy=policy)


def studies() -> tuple[StudyConfig, ...]:
    """A segmentation, and classifications by models of different kinds, the first of which harmonizes."""
    tiny, made = tiny_settings(), []
    models: tuple[dict[str, Any], ...] = (
        {"kind": "logistic"},
        {"kind": "svm-rbf", "num_features": 10},
        {"kind": "mlp", "hidden": [4]},
        {"kind": "random-forest", "num_trees": 3},
        {"kind": "gradient-boosting"},
        {"kind": "lda"},
    )
    for number, model in enumerate(models):
        content = tiny.model_dump(mode="json") | {
            "task": "classification",
            "classification": {
                "outcome": {"column": "course", "classes": ["c0", "c1"]},
                "features": list(NAMES),
                "clinical": ["age", "sex"],
                "model": model,
            },
        }
        if number == 0:
            content["harmonization"] = {"method": "combat", "features": list(NAMES), "min_cases": 3}
        made.append(StudyConfig.model_validate(content))
    return (tiny, *made)


def requests_of(study: StudyConfig) -> list[tuple[str, RecordDict]]:
    """One lawful request of each kind."""
    task, weights = RoundTask(study, 1), starting_weights(study)
    made = [("query", pack_task(task))]
    if study.harmonization.method != "none":
        columns = column_names(study.harmonization)
        slopes = np.zeros((len(columns), len(NAMES)))
        reference = Reference(
            study=study.name,
            settings=study.harmonization,
            columns=columns,
            slopes=tuple(map(tuple, slopes.tolist())),
            grand_mean=(10.0,) * len(NAMES),
            pooled_variance=(4.0,) * len(NAMES),
            num_cases=40,
            num_scanners=2,
            num_sites=2,
        )
        made += [
            ("query.moments", pack_task(task)),
            ("query.residuals", pack_slopes_task(task, slopes)),
            ("query.reference", pack_reference_task(task, reference)),
        ]
    asked = ("train", "evaluate", "query.segmentation")
    return [*made, *((kind, pack_task(task, weights)) for kind in asked)]


def mutate_request(rng: np.random.Generator, content: RecordDict) -> RecordDict:
    """A request with a part of it changed: of the study, of the other settings, of the arrays, or of the records."""
    content = RecordDict({name: record.copy() for name, record in content.items()})  # type: ignore[attr-defined]
    for _ in range(int(rng.integers(1, 3))):
        [_study, _study, _setting, _arrays, _arrays, _records][rng.integers(6)](rng, content)
    return content


def _study(rng: np.random.Generator, content: RecordDict) -> None:
    config = content.config_records.get(TASK)
    if config is None:
        return
    for name in ("study", "reference"):
        text = config.get(name)
        if isinstance(text, str) and rng.random() < 0.8:
            try:
                tree = json.loads(text)
            except ValueError:
                tree = text
            config[name] = mutated_json(rng, tree).decode(errors="replace")


def _setting(rng: np.random.Generator, content: RecordDict) -> None:
    config = content.config_records.get(TASK)
    if not config:
        return
    name = list(config)[rng.integers(len(config))] if rng.random() < 0.7 else "stage"
    value = HOSTILE[rng.integers(len(HOSTILE))]
    allowed = isinstance(value, float | str | bool) or (isinstance(value, int) and abs(value) < 2**63)
    if rng.random() < 0.2 and name in config:
        del config[name]
    else:
        config[name] = value if allowed else ["test", "segmentation"]


def _arrays(rng: np.random.Generator, content: RecordDict) -> None:
    record = content.array_records.get(ARRAYS)
    if not record:
        content[ARRAYS] = ArrayRecord({"block00000": Array(np.zeros(3, np.float32))})
        return
    name = list(record)[rng.integers(len(record))]
    array = record[name]
    try:
        value = array.numpy()
    except Exception:
        value = np.zeros(3)
    match int(rng.integers(9)):
        case 0:
            del record[name]
        case 1:
            record[f"{name}_"] = array
        case 2:
            record[name] = Array(array.dtype, array.shape, array.stype, mutated_bytes(rng, array.data))
        case 3:
            record[name] = Array(value.astype([np.float64, np.float16, np.int64, np.complex64, "S3"][rng.integers(5)]))
        case 4:
            record[name] = Array(array.dtype, (2**40,), array.stype, _header("(1099511627776,)"))
        case 5:
            record[name] = Array("object", (1,), array.stype, _header("(1,)", "|O") + b"cos\nsystem\n(S'id'\ntR.")
        case 6:
            record[name] = Array(value.reshape(1, *value.shape))
        case _:
            changed = value.astype(value.dtype, copy=True).reshape(-1)
            if changed.size and changed.dtype.kind == "f":
                at = rng.integers(changed.size, size=int(rng.integers(1, 4)))
                changed[at] = [np.nan, np.inf, 3e38, -3e38, 1e-40, 1e9, 0, -1][rng.integers(8)]
            record[name] = Array(changed.reshape(value.shape))


def _header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def _records(rng: np.random.Generator, content: RecordDict) -> None:
    match int(rng.integers(4)):
        case 0:
            content[f"extra{rng.integers(3)}"] = MetricRecord({"x": 1.0})
        case 1 if content:
            del content[list(content)[rng.integers(len(content))]]
        case 2:
            content[TASK] = MetricRecord({"study": 1.0})
        case _:
            content[TASK] = ConfigRecord({"study": json.dumps(mutate(rng, {"name": "x"})), "round": 1})


class Target:
    """The site's app, asked like a coordinator asks."""

    def __init__(self, site: SiteConfig) -> None:
        self.site = site
        open_context.cache_clear()
        self._grid = InProcessGrid(build_app(lambda _: site), 1)
        logging.getLogger("flwr").setLevel(logging.CRITICAL)

    def ask(self, kind: str, content: RecordDict) -> RecordDict:
        """The answer; an exception that gets here ended the app."""
        (reply,) = self._grid.send_and_receive([Message(content, 1, kind)])
        answer: RecordDict = reply.content
        return answer

    def fault(self, kind: str, content: RecordDict) -> str | None:
        """What is wrong with the answer: no lawful message, an unforeseen error, or text of the site in it."""
        answer = self.ask(kind, content)
        if set(answer) not in LAWFUL:
            return f"{kind}: answered {sorted(answer)}"
        refusal = unpack_refusal(answer)
        if refusal is not None and refusal.code is Code.INTERNAL:
            return f"{kind}: INTERNAL"
        told = str(dict(answer.config_records)) + str(dict(answer.metric_records))
        if MARKER in told or str(self.site.state) in told:
            return f"{kind}: a name of the site is in the answer"
        return None

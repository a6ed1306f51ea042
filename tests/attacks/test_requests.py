"""A coordinator that asks for too much, or for what makes no sense: refused by a code, and the site stays small."""

from __future__ import annotations

import gc
import json
import resource
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from msfl_client.rounds import site_context
from msfl_client.rounds.site_context import open_context
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code
from msfl_common.messages.records import ARRAYS, RoundTask, pack_task, unpack_refusal
from msfl_common.models.starting_weights import starting_weights
from msfl_common.system import logs
from tests.attacks.request_mutations import Target, make_target, mutate_request, requests_of, studies
from tests.conftest import tiny_settings

pytestmark = pytest.mark.filterwarnings("ignore")
TINY, LOGISTIC = tiny_settings(), studies()[1]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(make_target(tmp_path_factory.mktemp("hostile")))


def asked(study: StudyConfig, **changes: Any) -> RecordDict:
    """A request whose study says something that no `StudyConfig` may: `section__name=value`."""
    tree = study.model_dump(mode="json")
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = tree
        for parent in parents:
            place = place[parent]
        place[name] = value
    return RecordDict({"task": ConfigRecord({"study": json.dumps(tree), "round": 1})})


def code(target: Target, content: RecordDict, kind: str = "query") -> Code | None:
    refusal = unpack_refusal(target.ask(kind, content))
    return refusal and refusal.code


def megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def test_a_new_deadline_builds_nothing(target: Target) -> None:
    first = open_context(target.site, TINY, print)
    for number in range(50):
        rounds = TINY.rounds.model_copy(update={"deadline_s": 10.0 + number, "quorum": 1 + number, "patience_s": 1.0})
        again = open_context(target.site, TINY.model_copy(update={"rounds": rounds}), print)
        assert again.learner is first.learner
        assert again.study.rounds == rounds


def test_another_context_frees_the_last(target: Target) -> None:
    kept: weakref.ref[Any] = weakref.ref(open_context(target.site, TINY, print).learner)
    built: list[int] = []

    def on_progress(*_: object) -> None:
        """When the next one is built, the last is gone already."""
        gc.collect()
        built.append(kept() is not None)

    for seed in range(1, 3):
        learner = open_context(target.site, TINY.model_copy(update={"seed": seed}), on_progress).learner
        assert built
        assert not any(built)
        kept = weakref.ref(learner)
        del learner
    assert len(open_context._open) == 1


def test_a_thousand_new_settings_leave_few_files(tmp_path: Path) -> None:
    target = Target(make_target(tmp_path, cases=2, patients=4))
    for number in range(6):
        assert code(target, asked(TINY, inputs__spacing_mm=4.0 - number / 50)) is None
    files = list((target.site.state / "cache").glob("*.safetensors"))
    assert 0 < len(files) <= 2 * 4


def test_the_sites_log_is_bounded_and_one_line_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES", 20_000)
    target = Target(make_target(tmp_path, cases=1, patients=2))
    for number in range(40):
        assert (
            code(target, asked(TINY, task=f"{number}\n2026-01-01 ERROR forged\x1b[2J" + "x" * 5000)) is Code.BAD_STUDY
        )
    written = list(target.site.state.glob("site.log*"))
    assert sum(log.stat().st_size for log in written) < 4 * 25_000
    text = "".join(log.read_text() for log in written)
    assert "\x1b" not in text
    assert not any(line.startswith("2026-01-01 ERROR forged") for line in text.splitlines())


@pytest.mark.parametrize(
    "changes",
    [
        {"network__channels": [1024] * 6, "network__residual_units": 4, "training__patch_voxels": 96},
        {"network__channels": [1024] * 7, "training__patch_voxels": 512},
        {"training__patch_voxels": 512},
        {"training__patch_voxels": 8, "inputs__spacing_mm": 0.5, "validation__window_overlap": 0.9},
        {"harmonization": {"method": "combat", "age_knots_years": [number / 1e4 for number in range(30_000)]}},
        {"harmonization": {"method": "combat", "covariates": ["age"] * 10_000}},
        {"name": "x" * 1_000_000},
        {"name": "a\nb"},
        {"rounds__deadline_s": 1e400},
        {"rounds__num_rounds": 10**30},
        {"validation__bootstrap_samples": 10**9},
    ],
)
def test_a_study_beyond_all_bounds_is_refused_before_anything_is_built(target: Target, changes: dict[str, Any]) -> None:
    before, start = megabytes(), time.monotonic()
    assert code(target, asked(TINY, **changes)) is Code.BAD_STUDY
    assert time.monotonic() - start < 10
    assert megabytes() - before < 200


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "mlp", "hidden": [10**9, 10**9]},
        {"kind": "mlp", "hidden": [-5]},
        {"kind": "svm-rbf", "num_features": 10**6},
        {"kind": "random-forest", "num_trees": 10**9},
        {"kind": "gradient-boosting", "max_depth": 64},
    ],
)
def test_a_model_of_features_beyond_all_bounds_is_refused(target: Target, model: dict[str, Any]) -> None:
    before = megabytes()
    assert code(target, asked(LOGISTIC, classification__model=model)) is Code.BAD_STUDY
    assert megabytes() - before < 200


def test_curvatures_of_many_classes_and_features_are_refused(target: Target) -> None:
    many = {
        "outcome": {"column": "course", "classes": [f"c{number}" for number in range(8)]},
        "features": LOGISTIC.classification.features,  # type: ignore[union-attr]
        "clinical": [],
        "model": {"kind": "svm-rbf", "num_features": 2000},
    }
    assert code(target, asked(LOGISTIC, classification=many)) is Code.BAD_STUDY


@pytest.mark.parametrize(
    "changes",
    [
        {"training__batch_size": 1024, "training__patch_voxels": 64},
        {"training__patch_voxels": 128, "training__batch_size": 64},
        {"network__channels": [256, 512, 512]},
    ],
)
def test_a_batch_beyond_the_sites_memory_is_refused(target: Target, changes: dict[str, Any]) -> None:
    before = megabytes()
    for kind in ("query", "train", "evaluate"):
        assert code(target, asked(TINY, **changes), kind) is Code.POLICY
    assert megabytes() - before < 200


def test_the_machine_bounds_a_batch_where_no_policy_does(target: Target) -> None:
    policy = target.site.policy.model_copy(update={"max_memory_gb": None})
    site: SiteConfig = target.site.model_copy(update={"policy": policy})
    huge = asked(TINY, training__batch_size=1024, training__patch_voxels=128)
    assert code(Target(site), huge) is Code.POLICY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 100_000,
        '{"name": "a", "name": "b"}',
        '{"name": NaN}',
        '{"a":' * 1000 + "1" + "}" * 1000,
        '{"seed": ' + "9" * 5000 + "}",
        '"\ud800"'.encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ],
)
def test_a_study_that_is_no_lawful_json_is_refused(target: Target, text: str) -> None:
    content = RecordDict({"task": ConfigRecord({"study": text, "round": 1})})
    assert code(target, content) is Code.BAD_STUDY


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'shape': ((((",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{" * 500,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "__import__('os').system('id')",
        "\x00" * 100,
    ],
)
def test_weights_with_a_forged_header_are_refused(target: Target, header: str) -> None:
    text = header.ljust(600).encode() + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64
    content = pack_task(RoundTask(TINY, 1), starting_weights(TINY))
    content[ARRAYS] = ArrayRecord({"block00000": Array("float32", (16,), "numpy.ndarray", data)})
    assert code(target, content, "train") is Code.BAD_MODEL


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data[:-3], lambda data: data + b"\0" * 4])
def test_weights_with_more_or_fewer_bytes_than_their_header_says_are_refused(
    target: Target, change: Callable[[bytes], bytes]
) -> None:
    content = pack_task(RoundTask(TINY, 1), starting_weights(TINY))
    array = content.array_records[ARRAYS]["block00000"]
    content[ARRAYS] = ArrayRecord({"block00000": Array(array.dtype, array.shape, array.stype, change(array.data))})
    assert code(target, content, "train") is Code.BAD_MODEL


def test_mutated_requests_are_answered_or_refused_by_a_code(target: Target) -> None:
    requests = [request for study in studies() for request in requests_of(study)]
    before, faults = megabytes(), []
    for number in range(40):
        rng = np.random.default_rng([21, number])
        kind, content = requests[rng.integers(len(requests))]
        faults.append(target.fault(kind, mutate_request(rng, content)))
    assert [fault for fault in faults if fault] == []
    assert megabytes() - before < 500
    assert len(open_context._open) <= site_context.MOST_SITES

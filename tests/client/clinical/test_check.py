"""`msfl-client check` of a study that classifies, on tables without images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.clinical_site import Line, Tables
from tests.conftest import BidsSite

from msfl_client.cli.main import main
from msfl_client.connection.check import Row


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    policy = "policy: {tasks: [classification], refuse_models: []}\n"
    (tmp_path / "site.yaml").write_text(f"name: here\ndata: bids\nstate: state\n{policy}")
    return Tables(tmp_path / "bids")


def check(tables: Tables, monkeypatch: pytest.MonkeyPatch, *options: str, **settings: Any) -> int | str | None:
    """The exit code of a check."""
    content = {
        "name": "clinical",
        "task": "classification",
        "classification": {"clinical": ["edss"], "model": {"kind": "logistic"}} | settings,
    }
    folder = tables.root.parent
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    arguments = ["check", str(folder / "site.yaml"), "--study", str(folder / "study.yaml"), *options]
    monkeypatch.setattr("sys.argv", ["msfl-client", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


COLUMN = {"column": "active", "classes": ["no", "yes"]}
HEADER = ("participant_id", "edss", "active")
GOOD: list[Line] = [(f"sub-{n:02d}", 1 + n / 2, "yes" if n in (3, 4) else "no") for n in range(8)]


def test_faults_classes_and_reasons(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.participants(HEADER, *GOOD, ("sub-20", 11, "yes"), ("sub-21", 2, "n/a"))
    assert check(tables, monkeypatch, "--json", outcome=COLUMN) == 2  # of so few, nobody trains
    document = json.loads(capsys.readouterr().out)["classification"]
    assert document["per_class"] == {"no": 6, "yes": 2}
    assert document["splits"] == {"training": 4, "validation": 2, "test": 2}
    assert document["patients_of_splits"] == {"training": 4, "validation": 2, "test": 2}
    assert document["left_out"] == {"fault": 1, "no-label": 1}
    found = [(one["level"], one["case"], one["rule"]) for one in document["findings"]]
    assert found == [("fail", "sub-20", "clinical")]
    assert "participants.tsv: line 10, edss: expected a number from 0 to 10" in document["findings"][0]["text"]

    assert check(tables, monkeypatch, outcome=COLUMN) == 2
    text = capsys.readouterr().out
    assert "8 observations of 8 patients can be used: 4 of 4 patients for training, 2 of 2" in text
    assert "left out: 1, a fault in the patient's rows" in text
    assert "clinical: correct the line" in text


def test_small_groups_that_leave_nobody_are_said_to_keep_a_site_from_training(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_of_each = [(f"sub-{n:02d}", 1 + n / 4, ("no", "yes")[n % 2]) for n in range(16)]  # 4 and 4 to train on
    tables.participants(HEADER, *few_of_each)
    assert check(tables, monkeypatch, outcome=COLUMN) == 2
    told = capsys.readouterr()
    assert "training cases left out of groups that are too small: 4 training patients of class 0" in told.out
    assert "nothing would come of study clinical here: no case is left to train on (NO_CASES)" in told.err


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("tasks: [lesion-segmentation]", "task classification, which `policy.tasks` does not name"),
        ("tasks: [classification]", "model logistic, which `policy.refuse_models` names"),
    ],
)
def test_a_study_beyond_the_policy_is_said_before_there_is_a_kit(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], policy: str, expected: str
) -> None:
    tables.participants(HEADER, *GOOD)
    (tables.root.parent / "site.yaml").write_text(f"name: here\ndata: bids\nstate: state\npolicy: {{{policy}}}\n")
    assert check(tables, monkeypatch, outcome=COLUMN) == 2
    assert expected in capsys.readouterr().err
    assert not check(tables, monkeypatch, "--data-only", outcome=COLUMN)
    rows = [Row("study", "pass", "first: within the policy")]  # of the kit's study, which is another
    monkeypatch.setattr("msfl_client.cli.main._check_connection", lambda _: rows)
    assert check(tables, monkeypatch, "--connection", outcome=COLUMN) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(("label", "other"), [("no", "yes"), ("yes", "no")])
def test_one_class_is_a_warning(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], label: str, other: str
) -> None:
    tables.participants(HEADER, *((subject, edss, label) for subject, edss, _ in GOOD))
    assert check(tables, monkeypatch, "--json", outcome=COLUMN) == 2  # not for the class: for eight patients
    document = json.loads(capsys.readouterr().out)["classification"]
    assert document["per_class"] == {label: 8, other: 0}
    found = [(one["level"], one["rule"]) for one in document["findings"]]
    assert found == [("warn", "outcome")]


def test_no_patient_with_a_label_cannot_take_part(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.participants(HEADER, ("sub-01", 2, "maybe"), ("sub-02", 12, "yes"))
    assert check(tables, monkeypatch, outcome=COLUMN) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no patient can be used for active: 1 a fault in the patient's rows, 1 a label that is no class" in last


def test_a_label_among_the_inputs_is_refused(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.participants(
        ("participant_id", "treated", "active"), *((f"sub-{n:02d}", n % 2, ("no", "yes")[n % 2]) for n in range(12))
    )
    assert check(tables, monkeypatch, outcome=COLUMN, clinical=["treated"]) == 2
    assert "input treated and outcome active are the same in all 12 cases" in capsys.readouterr().err


def test_features_of_the_sites_own_take_the_place_of_images(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.participants(HEADER, *GOOD)
    rows = [(f"sub-{n:02d}", "n/a", 0.8 + n / 100) for n in range(7)]
    tables.write("features/features.tsv", ("participant_id", "session_id", "bpf"), *rows)
    assert check(tables, monkeypatch, "--json", outcome=COLUMN, features=["bpf"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["cases"] == []
    assert document["classification"]["per_class"] == {"no": 5, "yes": 2}
    assert document["classification"]["left_out"] == {"no-images": 1}


def test_images_are_looked_at_where_features_come_from_them(
    site: BidsSite, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.mask("sub-01").unlink()  # a mask is not needed
    site.image("sub-02", "FLAIR").unlink()
    tables.participants(("participant_id", "edss", "active"), *((f"sub-0{n}", n, "yes") for n in (1, 2, 3)))
    assert check(tables, monkeypatch, "--json", outcome=COLUMN, features=["bpf"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert "taken to have every feature" in document["forecast"]["assumed"]
    assert {case["key"]: case["status"] for case in document["cases"]} == {
        "sub-01": "pass", "sub-02": "fail", "sub-03": "pass"
    }  # fmt: skip
    assert document["classification"]["per_class"] == {"no": 0, "yes": 2}
    assert document["classification"]["left_out"] == {"no-images": 1}
    assert "features are not measured yet" in document["classification"]["findings"][0]["text"]


def test_a_table_that_cannot_be_read_is_one_line(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.participants(("participant_id,edss",), ("sub-01,2",))
    assert check(tables, monkeypatch, outcome=COLUMN) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_which_input_is_missing_is_said(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [(*line, "n/a" if number < 3 else 40) for number, line in enumerate(GOOD)]
    tables.participants((*HEADER, "age"), *lines)
    assert check(tables, monkeypatch, outcome=COLUMN, clinical=["edss", "age", "sex"]) == 2
    told = capsys.readouterr()
    assert "left out: 8, an input is missing: age of 3, sex of 8" in told.out
    assert "8 an input is missing: age of 3, sex of 8" in " ".join(told.err.split())

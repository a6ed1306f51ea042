"""The table of features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from msfl_client.features.table import FeatureRow, FeatureTable, read_features_table, write_features_table
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.errors import InputError

TABLE = FeatureTable(
    (
        FeatureRow("sub-01", "ses-01", "A 1", 0, {"bpf": 0.1 + 0.2, "lesion_count": 3.0}),
        FeatureRow("sub-02", None, None, 1, {}),
    )
)


def test_a_table_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    write_features_table(path, TABLE)
    assert read_features_table(path) == TABLE
    header, first, second = path.read_text().splitlines()
    assert header.split("\t")[:5] == ["participant_id", "session_id", "scanner", "dataset", "lesions"]
    assert header.split("\t")[5:] == list(FEATURES)
    assert len(first.split("\t")) == len(header.split("\t"))
    assert set(second.split("\t")[4:]) == {"n/a"}


def test_every_column_is_described(tmp_path: Path) -> None:
    write_features_table(tmp_path / "features.tsv", TABLE)
    columns = json.loads((tmp_path / "features.json").read_text())
    assert list(columns) == (tmp_path / "features.tsv").read_text().splitlines()[0].split("\t")
    assert all(column["Description"] for column in columns.values())
    assert columns["brain_volume_ml"]["Units"] == "ml"
    assert "Units" not in columns["bpf"]


@pytest.mark.parametrize("features", [{"bpf": float("nan")}, {"bpf": float("inf")}, {"age": 3.0}])
def test_a_feature_that_is_not_finite_or_not_known_is_not_written(tmp_path: Path, features: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sub-01"):
        write_features_table(tmp_path / "features.tsv", FeatureTable((FeatureRow("sub-01", None, None, 0, features),)))
    assert not (tmp_path / "features.tsv").exists()


def test_it_says_what_it_was_harmonized_to(tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    write_features_table(path, replace(TABLE, harmonized_to="abc"))
    assert read_features_table(path).harmonized_to == "abc"
    write_features_table(path, TABLE)
    assert read_features_table(path).harmonized_to is None


def test_a_sites_own_table(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text("\ufeffbpf\tweight\tparticipant_id\n0.8\theavy\tsub-1\nn/a\tlight\tsub-2\n", encoding="utf-8")
    assert read_features_table(path).rows == (
        FeatureRow("sub-1", None, None, 0, {"bpf": 0.8}),
        FeatureRow("sub-2", None, None, 0, {}),
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"no such file.*msfl-client features"),
        ("participant_id\tbpf\nsub-00\tlarge\n", "line 2, bpf: expected a finite number or n/a, found 'large'"),
        ("participant_id\tbpf\nsub-00\t1\nsub-01\tinf\n", "line 3, bpf: expected a finite number or n/a, found 'inf'"),
        ("participant_id\tdataset\tbpf\nsub-00\tx\t1\n", "line 2, dataset: expected a whole number"),
        ("participant_id\tbpv\nsub-00\t1\n", "participant_id and features among them"),
        ("bpf\n1.0\n", "participant_id and features among them"),
        ("participant_id\tbpf\nsub-00\t.8\nsub-01\t0\n", "line 3, bpf: expected 0.2 to 1, found 0; not measured"),
        ("participant_id\tbrain_volume_ml\n1\t1400000\n", r"line 2, brain_volume_ml: .*300 to 2500 ml.*mm3 for ml\?"),
        (
            "participant_id\tlesion_volume_ml\tlog_lesion_volume\nsub-1\t9\t1.0\n",
            r"line 2, log_lesion_volume: expected ln\(1 \+ lesion_volume_ml\), here 2.303, found 1",
        ),
        ("participant_id\tbpf\nsub-1\t.8\n1\t.8\n", "line 3: sub-1 is on line 2, too"),
        ("participant_id\tbpf\n\t.8\n", "line 2, participant_id: expected a subject"),
        ("participant_id\tbpf\tcentre\nsub-1\t.8\n", "line 2: expected 3 cells as in the first line, found 2"),
        ("participant_id\tbpf\tbpf\nsub-1\t.8\t.8\n", "column bpf is there twice"),
        ("", "participant_id and features among them"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "features.tsv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=text):
        read_features_table(path)


def test_a_decimal_comma_is_said_with_its_fix(tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    path.write_text("participant_id\tbrain_volume_ml\nsub-01\t1250,5\n")
    with pytest.raises(InputError, match="found '1250,5'; write numbers with a decimal point"):
        read_features_table(path)


def test_a_quote_divides_nothing_and_labels_may_lack_their_prefix(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text('participant_id\tsession_id\tscanner\tbpf\n1\t02\t"GE 3T\t0.8\n\nsub-2\tn/a\tB\t0.7\n')
    rows = (FeatureRow("sub-1", "ses-02", '"GE 3T', 0, {"bpf": 0.8}), FeatureRow("sub-2", None, "B", 0, {"bpf": 0.7}))
    assert read_features_table(path).rows == rows
    write_features_table(tmp_path / "again.tsv", FeatureTable(rows))
    assert read_features_table(tmp_path / "again.tsv").rows == rows


def test_a_harmonized_value_may_lie_beyond_what_can_be_measured(tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    rows = (FeatureRow("sub-1", None, None, 0, {"log_lesion_volume": -0.2}),)
    write_features_table(path, FeatureTable(rows, harmonized_to="abc"))
    assert read_features_table(path).rows == rows
    write_features_table(path, FeatureTable(rows))
    with pytest.raises(InputError, match="log_lesion_volume"):
        read_features_table(path)

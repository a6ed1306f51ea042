"""The table of features."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msfl_client.feature_table import FeatureRow, read_features_table, write_features_table
from msfl_common.errors import InputError
from msfl_common.features import FEATURES

ROWS = [
    FeatureRow("sub-01", "ses-01", "A 1", 0, {"bpf": 0.1 + 0.2, "lesion_count": 3.0}),
    FeatureRow("sub-02", None, None, 1, {}),
]


def test_a_table_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    write_features_table(path, ROWS)
    assert read_features_table(path) == ROWS
    header, first, second = path.read_text().splitlines()
    assert header.split("\t")[:3] == ["participant_id", "session_id", "scanner"]
    assert header.split("\t")[4:] == list(FEATURES)
    assert len(first.split("\t")) == len(header.split("\t"))
    assert set(second.split("\t")[4:]) == {"n/a"}


def test_every_column_is_described(tmp_path: Path) -> None:
    write_features_table(tmp_path / "features.tsv", ROWS)
    columns = json.loads((tmp_path / "features.json").read_text())
    assert list(columns) == (tmp_path / "features.tsv").read_text().splitlines()[0].split("\t")
    assert all(column["Description"] for column in columns.values())
    assert columns["brain_volume_ml"]["Units"] == "ml"
    assert "Units" not in columns["bpf"]


@pytest.mark.parametrize("features", [{"bpf": float("nan")}, {"bpf": float("inf")}, {"age": 3.0}])
def test_a_feature_that_is_not_finite_or_not_known_is_not_written(tmp_path: Path, features: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sub-01"):
        write_features_table(tmp_path / "features.tsv", [FeatureRow("sub-01", None, None, 0, features)])
    assert not (tmp_path / "features.tsv").exists()


def test_a_table_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "features.tsv"
    with pytest.raises(InputError, match=r"no such file.*msfl-client features"):
        read_features_table(path)
    write_features_table(path, ROWS)
    text = path.read_text()
    path.write_text(text.replace("bpf", "bpv"))
    with pytest.raises(InputError, match="not this version's"):
        read_features_table(path)
    path.write_text(text.replace("3.0", "inf"))
    with pytest.raises(InputError, match="lesion_count not finite"):
        read_features_table(path)
    path.write_text(text.replace("3.0", "three"))
    with pytest.raises(InputError, match="three"):
        read_features_table(path)

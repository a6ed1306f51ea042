"""Where MLflow's database of a folder lies: SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from msfl_common.errors import InputError

STORE_FILE = "mlflow.db"


def sqlite_uri(folder: Path) -> str:
    """MLflow's URI of the store in a folder.

    Raises:
        InputError: the folder's path cannot be written as such a URI.
    """
    path = (folder / STORE_FILE).resolve().as_posix()
    if "?" in path or "%" in path:
        raise InputError(f"{folder}: MLflow's SQLite store allows no ? or % in a path; choose another folder")
    return f"sqlite:///{path}"


def check_sqlite(uri: str) -> None:
    """Fail at once where MLflow would retry for 100 seconds: a file that is no database, or out of reach."""
    if not uri.startswith("sqlite:///"):
        return
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    finally:
        connection.close()

"""MLflow's application, with artifacts in one place that neither a URI nor a link can lead out of.

MLflow opens whatever artifact location stands in its store, by a list of schemes. Here that list has one entry: the
place that the server was started with. MLflow reads its settings from the environment as it is imported, so import
this module once they are set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.server.handlers import initialize_backend_stores
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

PROXIED_ROOT = "mlflow-artifacts:/"


def application(store: str, artifacts: str):  # type: ignore[no-untyped-def]
    """MLflow's ASGI application.

    Args:
        store: URI of its database.
        artifacts: URI of the one place for artifacts, a `file:` folder or an `s3:` prefix.
    """
    _allow_only(artifacts)
    initialize_backend_stores(store, store, PROXIED_ROOT)
    from mlflow.server.fastapi_app import app

    return app


def _allow_only(artifacts: str) -> None:
    known: dict[str, Any] = get_registered_artifact_repositories()
    scheme = artifacts.split(":", 1)[0]
    own = known[scheme]
    known.clear()

    def of_the_place(uri: str, **options: Any) -> ArtifactRepository:
        if uri.rstrip("/") != artifacts.rstrip("/"):
            raise MlflowException(f"artifacts lie in {scheme}: at the server's own place alone")
        repository: ArtifactRepository = Contained(uri, **options) if scheme == "file" else own(uri, **options)
        return repository

    known[scheme] = of_the_place


class Contained(LocalArtifactRepository):
    """A folder of artifacts in which a link leads nowhere."""

    def get_local_path(self, artifact_path: str) -> str:
        """See `LocalArtifactRepository`."""
        self._refuse_links(artifact_path)
        return str(super().get_local_path(artifact_path))

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """See `LocalArtifactRepository`."""
        self._refuse_links(path or "")
        found = super().list_artifacts(path)  # type: ignore[no-untyped-call]
        return [one for one in found if not (Path(self.artifact_dir) / one.path).is_symlink()]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._refuse_links(remote_file_path)
        super()._download_file(remote_file_path, local_path)  # type: ignore[no-untyped-call]

    def _get_or_create_artifact_dir(self, artifact_path: str | None = None) -> str:
        self._refuse_links(artifact_path or "")
        return str(super()._get_or_create_artifact_dir(artifact_path))

    def _refuse_links(self, path: str) -> None:
        place = Path(self.artifact_dir)
        for part in Path(path).parts:
            place /= part
            if part == ".." or place.is_symlink():
                raise MlflowException.invalid_parameter_value(f"{path!r:.200}: leads out of the folder of artifacts")

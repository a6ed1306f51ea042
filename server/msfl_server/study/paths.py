"""Where what lies in the coordinator's study folder; `msfl_server.study.folder` says what it all is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msfl_server.study.ledger_heads import HEADS_FILE


@dataclass(frozen=True)
class StudyFolder:
    """Where everything of a study lies."""

    root: Path

    @property
    def study_file(self) -> Path:
        """The study, `StudyConfig`."""
        return self.root / "study.yaml"

    @property
    def server_file(self) -> Path:
        """The server, `ServerConfig`."""
        return self.root / "server.yaml"

    @property
    def ca_certificate(self) -> Path:
        """The authority that sites trust."""
        return self.root / "pki" / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """The authority's key, the study's one great secret, unless it lies elsewhere; `start` never needs it."""
        return self.root / "pki" / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """What the server shows to sites."""
        return self.root / "pki" / "server.crt"

    @property
    def server_key(self) -> Path:
        """The server's key, a secret."""
        return self.root / "pki" / "server.key"

    @property
    def server_since(self) -> Path:
        """From when on the server's certificates count; see `Kit.server_since`."""
        return self.root / "pki" / "server.since"

    @property
    def sites(self) -> Path:
        """Folder of NAME.pub, one for each authorised site."""
        return self.root / "sites"

    @property
    def kits(self) -> Path:
        """Folder of the joining kits."""
        return self.root / "kits"

    @property
    def database(self) -> Path:
        """SuperLink's database."""
        return self.root / "superlink.db"

    @property
    def run(self) -> Path:
        """The run's results and checkpoints."""
        return self.root / "run"

    @property
    def ledger_heads(self) -> Path:
        """What was seen of the sites' ledgers."""
        return self.run / HEADS_FILE

    @property
    def logs(self) -> Path:
        """Logs of the server's processes."""
        return self.root / "logs"

    @property
    def status(self) -> Path:
        """What the server is doing, as JSON."""
        return self.root / "status.json"

    def public_key_file(self, site: str) -> Path:
        """The public key of an authorised site."""
        return self.sites / f"{site}.pub"

    def kit(self, site: str) -> Path:
        """The joining kit of a site."""
        return self.kits / site

    def kit_archive(self, site: str) -> Path:
        """The same kit in one file."""
        return self.kits / f"{site}.zip"

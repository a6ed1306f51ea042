"""A site's folder as `msfl-client init` makes it: site.yaml, site.key and its public key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msfl_client.site.keys import make_key, public_key_file
from msfl_common.config.base import validate
from msfl_common.config.site import SITE_FILE, SiteConfig
from msfl_common.config.yaml_template import commented_yaml
from msfl_common.errors import InputError
from msfl_common.system.files import write_text

OWN_MODELS = "personal"  # in the state folder: models that this site made for itself
_HEADER = """\
This site's own file; it never leaves the site. Look at your data with: msfl-client check site.yaml
Besides name and data, what is given here is the default; change what you like."""


@dataclass(frozen=True)
class SiteFolder:
    """What `init_site` made."""

    site_file: Path
    key: Path
    public_key: str

    @property
    def public_key_file(self) -> Path:
        """What the coordinator needs."""
        return public_key_file(self.key)


def init_site(folder: Path, name: str, data: Path, passphrase: bytes | None = None) -> SiteFolder:
    """Write a site's file and make its key.

    Args:
        folder: created when missing, for this account alone; may hold other files, but no site.yaml and no key.
        name: the site's name in the study.
        data: the site's BIDS folder.
        passphrase: what the key is encrypted with, if anything.

    Raises:
        ConfigError: the name is not valid.
        InputError: a file is there already, or there is no such data folder; nothing is written.
    """
    if not data.is_dir():
        what = "is a file" if data.is_file() else "no such folder"
        raise InputError(f"{data}: {what}; name the BIDS folder that holds sub-*")
    content = {"name": name, "data": [str(data.resolve())], "state": "state"}
    site = validate(SiteConfig, content, "init")
    site_file, key = folder / SITE_FILE, folder / site.key
    if site_file.exists():
        raise InputError(f"{site_file}: is there already; edit it, or name another folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        public_key = make_key(key, name, passphrase)
        write_text(site_file, commented_yaml(site, _HEADER))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; name another folder") from None
    return SiteFolder(site_file, key, public_key)

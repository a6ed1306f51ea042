"""Another account of a site's or the coordinator's machine, where folders are more open than they should be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msfl_client.site.folder import init_site
from msfl_common.config.site import load_site
from msfl_common.errors import InputError
from msfl_common.system.files import private_folder
from msfl_server.study.folder import init_study, open_study
from tests.attacks.kit_study import SERVER


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where other accounts get to: pytest's own folders let nobody in, and then nothing below is in danger."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "hospital").mkdir(mode=0o755)
    return init_site(tmp_path / "hospital" / "site", "a", tmp_path / "data").site_file


@pytest.mark.parametrize("what", ["the file", "its folder", "a folder above"])
def test_a_policy_that_others_may_write_is_refused(site_file: Path, what: str) -> None:
    """Another account took `min_patients` out of it, and the site trained on one patient."""
    site_file.parent.chmod(0o755)
    load_site(site_file)
    part = {"the file": site_file, "its folder": site_file.parent, "a folder above": site_file.parents[1]}[what]
    for mode in (0o777, 0o757) if part.is_dir() else (0o666, 0o602):
        part.chmod(mode)
        with pytest.raises(InputError, match=rf"{part}: other accounts may .*; run `chmod go-w "):
            load_site(site_file)
    if part.is_dir():
        part.chmod(0o1777)
        load_site(site_file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another group")
def test_a_group_counts_unless_it_is_the_accounts_own(site_file: Path) -> None:
    site_file.parent.chmod(0o755)
    site_file.chmod(0o664)
    load_site(site_file)
    os.chown(site_file, -1, 12_345)
    with pytest.raises(InputError, match="other accounts may change it"):
        load_site(site_file)


def test_init_leaves_nothing_open_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    before = os.umask(0)
    try:
        made = init_site(tmp_path / "site", "a", tmp_path / "data")
        study = init_study(tmp_path / "study", SERVER)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (made.site_file.parent, study.root)] == [0o700, 0o700]
    load_site(made.site_file)


@pytest.mark.parametrize("use", [private_folder, open_study])
def test_a_folder_that_others_can_put_another_in_the_place_of(tmp_path: Path, use: Callable[[Path], object]) -> None:
    """A running coordinator would read the sites' keys from the other one, and let its sites in."""
    above = tmp_path / "open"
    above.mkdir()
    init_study(above / "study", SERVER)
    use(above / "study")
    above.chmod(0o777)
    with pytest.raises(InputError, match=r"open: other accounts may put other files into it .*run `chmod go-w "):
        use(above / "study")

"""MSFL as it is installed here, with a hook of a test's own: the one way in that its processes leave open."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path


def hooked_installation(folder: Path, hook: str) -> Path:
    """A virtual environment that has all packages of this one, and `hook` as its sitecustomize; its `bin` folder."""
    python = Path(os.path.realpath(sys.executable))
    packages, bin_folder = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages", folder / "bin"
    packages.mkdir(parents=True)
    bin_folder.mkdir()
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    (packages / "all.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (packages / "sitecustomize.py").write_text(hook)
    (bin_folder / "python").symlink_to(python)
    for side in ("client", "server"):
        script = bin_folder / f"msfl-{side}"
        script.write_text(f"#!{bin_folder / 'python'}\nfrom msfl_{side}.cli.main import main\n\nmain()\n")
        script.chmod(0o755)
    return bin_folder

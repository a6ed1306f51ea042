"""MSFL as it is installed here, with a hook of a test's own: the one way in that its processes leave open."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from msfl_server.cli.research.command import PACKAGES


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


# What one side's installation does not bring. The wheel holds the research tools, but no coordinator needs them.
NOT_AT_A_SITE = ("msfl_server", "mlflow", "ray", "lightgbm", "optuna", "psycopg2", "boto3")
NOT_AT_A_COORDINATOR = ("msfl_client", "msfl_server.research", "ray", *PACKAGES)
# It brings PyTorch, but must not load it into the processes that play the rounds: seconds, and hundreds of megabytes.
NOT_LOADED_AT_A_COORDINATOR = (*NOT_AT_A_COORDINATOR, "torch", "monai")


def lacking(names: tuple[str, ...]) -> str:
    """A hook for an installation that lacks packages or modules: a program that no later import of them finds."""
    return f"""\
import sys
from importlib.machinery import PathFinder


class Lacking(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in {names}):
            return None
        return PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking
"""

"""Strikes a process of MSFL at one point of its code; read by Python at start, where a test installs it.

`MSFL_TEST_FAULT` is `module:function:call:what:marker`: at the given call of the function (from 1), either `kill`
(SIGKILL to this process) or `hold` (wait until the test says go on). The marker file makes it happen once in all
processes that inherit the variable, and tells the test that it happened. A number instead moves the time that the
function returns by that many seconds, at every call.
"""

import datetime
import importlib.abc
import importlib.machinery
import itertools
import os
import signal
import sys
import time
from pathlib import Path

LONGEST_HOLD_S = 240


class _Strike(importlib.abc.MetaPathFinder):
    """Wraps the function as soon as its module is loaded."""

    def __init__(self, module, function, call, what, marker):
        self._module, self._path = module, function.split(".")
        self._call, self._what, self._marker = int(call), what, Path(marker)
        self._calls = itertools.count(1)

    def find_spec(self, name, path=None, target=None):
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def load_and_wrap(module):
            load(module)
            *owners, last = self._path
            owner = module
            for one in owners:
                owner = getattr(owner, one)
            setattr(owner, last, self._wrapped(getattr(owner, last)))

        spec.loader.exec_module = load_and_wrap
        return spec

    def _wrapped(self, function):
        if self._what not in ("kill", "hold"):
            skew = datetime.timedelta(seconds=float(self._what))
            return lambda: function() + skew

        def struck(*args, **kwargs):
            if next(self._calls) == self._call and not self._marker.exists():
                self._marker.touch()
                if self._what == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                end = time.monotonic() + LONGEST_HOLD_S
                while not self._marker.with_suffix(".go").exists() and time.monotonic() < end:
                    time.sleep(0.05)
            return function(*args, **kwargs)

        return struck


if fault := os.environ.get("MSFL_TEST_FAULT"):
    sys.meta_path.insert(0, _Strike(*fault.split(":", 4)))

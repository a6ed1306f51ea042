"""Loading packages of native code, which takes seconds.

Ctrl-C within it would end the process by an abort, or be lost: native code that meets the exception of an interrupt
does not pass it on. It is heard once all is loaded.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from msfl_common.system.progress import busy, console

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Say what is being loaded, as `busy`, and hold interrupts back until it is."""
    with held_interrupts(), busy(what):
        yield


@contextmanager
def says_how_to_resume(how: str) -> Iterator[None]:
    """Say a line on what to do next where the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(how, soft_wrap=True)
        raise


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Hold back Ctrl-C, and being told to end, until the block is left."""
    if threading.current_thread() is not threading.main_thread():  # no signal is handled in another one
        yield
        return
    told: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        told.append(number)

    before = {one: signal.getsignal(one) for one in _HELD}
    handled = {one: handler for one, handler in before.items() if callable(handler)}  # others do not raise in Python
    for one in handled:
        signal.signal(one, note)
    try:
        yield
    finally:
        for one, handler in handled.items():
            signal.signal(one, handler)
        if told:
            signal.raise_signal(told[0])

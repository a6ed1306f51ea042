"""Ctrl-C while packages are loaded: heard, but once they are."""

from __future__ import annotations

import signal
import threading

import pytest

from msfl_common.system.loading import held_interrupts, loading, says_how_to_resume


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_heard_once_all_is_loaded(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)  # as in our commands, however these tests are started
    done = []

    def load() -> None:
        with loading("loading"):
            signal.raise_signal(number)
            done.append("loaded")

    try:
        with pytest.raises(KeyboardInterrupt):
            load()
        assert done == ["loaded"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_what_nobody_handles_in_python_stays_as_it_is() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interrupts():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_load_too() -> None:
    done = []

    def load() -> None:
        with loading("loading"):
            done.append("loaded")

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert done == ["loaded"]


def test_who_interrupts_is_told_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), says_how_to_resume("the same command resumes"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "the same command resumes\n"

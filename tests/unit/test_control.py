"""How a run is stopped from outside: signals, before and after its work is over."""

from __future__ import annotations

import os
import signal

import pytest

from jobs.control import SignalControl


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_second_aborts(number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with SignalControl(said.append) as control:
        assert (control.drain, control.abort) == (None, False)
        os.kill(os.getpid(), number)
        assert (control.drain, control.abort) == ("interrupted", False)
        os.kill(os.getpid(), number)
        assert control.abort
    assert said == [
        "stopping: committing what is finished; once more to stop at once",
        "stopping now",
    ]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_the_work_is_over_a_signal_interrupts(number: signal.Signals) -> None:
    with SignalControl(lambda text: None) as control:
        control.summing_up()
        with pytest.raises(KeyboardInterrupt, match="'imagemill resume OUTPUT' does the rest"):
            os.kill(os.getpid(), number)

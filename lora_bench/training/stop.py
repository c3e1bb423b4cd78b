"""Stopping a process that trains: the signals, and the exit status that asks to be requeued."""

import signal
from types import FrameType

REQUEUE = 75  # exit status of a run that was stopped and can continue (EX_TEMPFAIL in sysexits.h)
# Sent by a scheduler before it takes the machine away; submitit's jobs use SIGUSR2.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """The process was asked to stop; runs whose methods can save their state have a checkpoint."""


class StopSignals:
    """Records signals that ask the process to stop, for the duration of a ``with`` block.

    Attributes:
        received: name of the signal; None without one.
    """

    received: str | None = None

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name


class StopAtOnce(StopSignals):
    """Raises ``Stopped`` at a signal at once, unless an inner block of the parent records it."""

    def _note(self, number: int, frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

"""Stopping a process that trains: the signals, and the exit status that asks for another go."""

import signal
from types import FrameType

REQUEUE = 75  # exit status of a run that was stopped and can go on (EX_TEMPFAIL of sysexits.h)
# A scheduler's, before it takes the machine away; SIGUSR2 is that of submitit's jobs.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """The process was asked to stop; every run of the group has a checkpoint."""


class StopSignals:
    """Notes signals that ask the process to stop, for the time of a ``with`` block.

    Attributes:
        received: name of the signal; None: there was none.
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

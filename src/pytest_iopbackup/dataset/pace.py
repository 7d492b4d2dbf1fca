"""How fast the workload's clients may go while something is done beside them, several times."""

from __future__ import annotations

from threading import Condition


class Pace:
    """Lets clients begin transactions, in as many stretches as there are pauses between them, and one more.

    At the end of a stretch they wait until what is to be done there begins, and go on in the same moment: so it is done
    while they are at work, however long it takes, and is spread over all of the workload.
    """

    def __init__(self, transactions: int, pauses: int = 0) -> None:
        self._ends = tuple(transactions * (number + 1) // (pauses + 1) for number in range(pauses + 1))
        self._stretch = 0
        self._begun = 0
        self._over = False
        self._changed = Condition()

    def step(self) -> bool:
        """Begin a transaction: wait until there may be one more, and return whether there may, or it is all over."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._begun < self._ends[self._stretch])
            self._begun += not self._over
            if self._begun == self._ends[self._stretch]:
                self._changed.notify_all()
            return not self._over

    def next(self) -> bool:
        """Wait for the end of a stretch and begin the next one; returns False when it is all over."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._begun >= self._ends[self._stretch])
            if not self._over:
                self._stretch += 1
                self._changed.notify_all()
            return not self._over

    def stop(self) -> None:
        """End it for all."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def waiting(self) -> bool:
        """Whether the clients have reached the end of a stretch that is not the last, and wait."""
        with self._changed:
            return self._begun == self._ends[self._stretch] < self._ends[-1]

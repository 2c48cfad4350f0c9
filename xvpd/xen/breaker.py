"""`Breaker`: keeps everybody from waiting for a host that does not answer. Pure: whoever uses it brings the time."""

from typing import Final

FAILURES: Final = 5
"""Dials that failed one after the other until a host is left alone."""
SECONDS: Final = 10.0
"""How long it is left alone until one dial tries it again."""


class Breaker:
    """Of one host. A failure is a host that cannot be reached or says nothing; whatever it says is a success."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_until = 0.0

    @property
    def failures(self) -> int:
        """How many dials have failed since the last success."""
        return self._failures

    def admits(self, now: float) -> bool:
        """Whether the host may be dialled. While it is left alone, one is let through whenever `SECONDS` have passed."""
        if self._failures < FAILURES:
            return True
        if now < self._closed_until:
            return False
        self._closed_until = now + SECONDS
        return True

    def succeeded(self) -> None:
        """The host has said something."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """A dial has failed."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._closed_until = now + SECONDS

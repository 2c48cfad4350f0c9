"""A simulated pool as xvpd's configuration would name it."""

from collections.abc import Sequence
from typing import Any

from tests.sim.pools import PoolCase
from xvpd.reason import Reason, Refusal
from xvpd.sim.pool import SimulatedPool
from xvpd.xen.settings import PoolSettings
from xvpd.xen.trust import Pins, Trust

UNKNOWN_UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


class LabCase(PoolCase):
    """A test with simulated pools."""

    def settings(
        self,
        pool: SimulatedPool,
        *,
        name: str = "lab",
        hosts: Sequence[str] | None = None,
        password: str | None = None,
        trust: Trust | None = None,
        state_dir: str = "",
    ) -> PoolSettings:
        """What an operator would write about ``pool``."""
        return PoolSettings(
            name=name,
            hosts=tuple(pool.addresses if hosts is None else hosts),
            username=pool.username,
            password=pool.password if password is None else password,
            trust=trust or Pins(frozenset(pool.fingerprints), pool.addresses if hosts is None else hosts),
            port=pool.port,
            state_dir=state_dir,
        )

    def logins(self, pool: SimulatedPool) -> list[str]:
        """The originators of the attempts to log in from now on, as they come."""
        attempts: list[str] = []
        log_in = pool.state.log_in

        def counting(user: str, password: str, originator: str) -> str:
            attempts.append(originator)
            return log_in(user, password, originator)

        self.patch(pool.state, "log_in", counting)
        return attempts

    def assert_refused(self, answer: Any, reason: Reason, *words: str) -> None:
        """That an answer is a refusal for this reason whose detail has these words."""
        self.assertIsInstance(answer, Refusal, answer)
        self.assertEqual(answer.reason, reason, answer)
        for word in words:
            self.assertIn(word, answer.detail)

"""`xvpd.xen.breaker`: a host that does not answer is left alone, and tried again."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.xen.breaker import FAILURES, SECONDS, Breaker


class BreakerTests(SynchronousTestCase):
    def broken(self, now: float = 0.0) -> Breaker:
        breaker = Breaker()
        for _ in range(FAILURES):
            self.assertTrue(breaker.admits(now))
            breaker.failed(now)
        return breaker

    def test_a_host_that_fails_time_and_again_is_left_alone_for_a_while(self) -> None:
        breaker = self.broken(100.0)
        self.assertFalse(breaker.admits(100.0))
        self.assertFalse(breaker.admits(100.0 + SECONDS - 0.1))
        self.assertEqual(breaker.failures, FAILURES)

    def test_then_one_alone_tries_it(self) -> None:
        breaker = self.broken()
        self.assertTrue(breaker.admits(SECONDS))
        self.assertFalse(breaker.admits(SECONDS))

    def test_a_trial_that_fails_has_it_left_alone_again(self) -> None:
        breaker = self.broken()
        self.assertTrue(breaker.admits(SECONDS))
        breaker.failed(SECONDS + 5)
        self.assertFalse(breaker.admits(2 * SECONDS + 4))
        self.assertTrue(breaker.admits(2 * SECONDS + 5))

    def test_a_trial_that_was_given_up_is_followed_by_another(self) -> None:
        breaker = self.broken()
        self.assertTrue(breaker.admits(SECONDS))
        self.assertTrue(breaker.admits(2 * SECONDS))

    def test_a_success_ends_it(self) -> None:
        breaker = self.broken()
        breaker.succeeded()
        for _ in range(FAILURES - 1):
            breaker.failed(0.0)
            self.assertTrue(breaker.admits(0.0))

    @given(st.lists(st.sampled_from(["admits", "failed", "succeeded", "wait"]), max_size=60))
    def test_it_is_left_alone_only_after_failures_in_a_row_and_never_for_ever(self, steps: list[str]) -> None:
        breaker, now, row = Breaker(), 0.0, 0
        for step in steps:
            match step:
                case "admits":
                    self.assertTrue(breaker.admits(now) or row >= FAILURES)
                case "failed":
                    breaker.failed(now)
                    row += 1
                case "succeeded":
                    breaker.succeeded()
                    row = 0
                case _:
                    now += SECONDS / 3
        self.assertTrue(breaker.admits(now + SECONDS))

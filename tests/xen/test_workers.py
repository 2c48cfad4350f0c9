"""`xvpd.xen.workers`: threads that nobody waits for longer than they want to."""

import threading

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from xvpd.xen.workers import StoppedError, Workers

NAME = "workers-under-test"


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if NAME in thread.name]


def _nothing() -> None:
    """An interruption of work that needs none."""


class _Blocked:
    """Work that lasts until it is interrupted."""

    def __init__(self, obeys: bool = True) -> None:
        self.begun: Deferred[None] = Deferred()
        self.interrupted = 0
        self._obeys = obeys
        self._over = threading.Event()

    def __call__(self) -> str:
        reactor.callFromThread(self.begun.callback, None)  # type: ignore[attr-defined]
        assert self._over.wait(30)
        return "over"

    def interrupt(self) -> None:
        self.interrupted += 1
        if self._obeys:
            self._over.set()

    def end(self) -> None:
        self._over.set()


class WorkersTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.workers = Workers(reactor, NAME, count=2)
        self.workers.start()
        self.addCleanup(self.workers.stop, 10)

    def blocked(self, obeys: bool = True) -> _Blocked:
        work = _Blocked(obeys)
        self.addCleanup(work.end)
        return work

    async def test_gives_what_the_work_returns(self) -> None:
        self.assertEqual(await self.workers.run(lambda: 6 * 7, _nothing), 42)

    async def test_gives_what_the_work_raises(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            await self.workers.run(lambda: 1 // 0, _nothing)

    async def test_work_is_done_in_another_thread(self) -> None:
        self.assertNotEqual(await self.workers.run(threading.get_ident, _nothing), threading.get_ident())

    async def test_cancelling_interrupts_the_work_and_frees_the_thread(self) -> None:
        for _ in range(5):  # more than there are threads
            work = self.blocked()
            running = self.workers.run(work, work.interrupt)
            await work.begun
            running.cancel()
            with self.assertRaises(CancelledError):
                await running
            self.assertEqual(work.interrupted, 1)

    async def test_work_that_waits_for_a_thread_is_cancelled_without_being_begun(self) -> None:
        blocked = [self.blocked(), self.blocked()]
        running = [self.workers.run(work, work.interrupt) for work in blocked]
        waiting_work = self.blocked()
        waiting = self.workers.run(waiting_work, waiting_work.interrupt)
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        for work in blocked:
            work.end()
        for each in running:
            self.assertEqual(await each, "over")
        self.assertFalse(waiting_work.begun.called)
        self.assertEqual(waiting_work.interrupted, 0)

    async def test_stopping_interrupts_what_is_under_way_and_refuses_what_waits(self) -> None:
        blocked = [self.blocked(), self.blocked()]
        running = [self.workers.run(work, work.interrupt) for work in blocked]
        waiting = self.workers.run(lambda: "never", _nothing)
        for work in blocked:
            await work.begun
        await self.workers.stop(10)
        self.assertEqual([await each for each in running], ["over", "over"])
        await self.assertFailure(waiting, StoppedError)
        await self.assertFailure(self.workers.run(lambda: "late", _nothing), StoppedError)
        self.assertEqual(_threads(), [])

    async def test_a_thread_that_does_not_end_does_not_hold_up_the_stop(self) -> None:
        work = self.blocked(obeys=False)
        running = self.workers.run(work, work.interrupt)
        await work.begun
        await self.workers.stop(0.01)
        self.assertTrue(all(thread.daemon for thread in _threads()))
        self.assertEqual(len(_threads()), 1)
        work.end()
        self.assertEqual(await running, "over")

    async def test_interrupt_reaches_all_that_has_begun(self) -> None:
        blocked = [self.blocked(), self.blocked()]
        running = [self.workers.run(work, work.interrupt) for work in blocked]
        for work in blocked:
            await work.begun
        self.workers.interrupt()
        self.assertEqual([await each for each in running], ["over", "over"])
        self.assertEqual(await self.workers.run(lambda: "next", _nothing), "next")

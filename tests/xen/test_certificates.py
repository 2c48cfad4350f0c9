"""`xvpd.xen.certificates`: members are pinned through the coordinator, and remembered."""

from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.sim.pools import certificates
from tests.xen.lab import LabCase
from xvpd.net.leg import Leg
from xvpd.reason import Reason, Refusal
from xvpd.sim.faults import EVERYWHERE, ApiFault
from xvpd.sim.pool import SimulatedPool
from xvpd.xen import certificates as module
from xvpd.xen.hypervisor import Location
from xvpd.xen.pins import PinFile, PinFileError
from xvpd.xen.pool import Pool
from xvpd.xen.settings import PoolSettings
from xvpd.xen.trust import Authority, Pins, Plain, Trust

CALL = "host.get_server_certificate"


def plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").lower()


class CertificatesCase(LabCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.expiry: dict[str, Mapping[str, float]] = {}
        self.warnings: list[str] = []
        self.patch(module, "SPACING", 0.01)

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("log_level") in (LogLevel.warn, LogLevel.error):
                self.warnings.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def trust(self, lab: SimulatedPool, *listed: int) -> Pins:
        """What an operator wrote down who knows some hosts alone."""
        return Pins(frozenset(lab.fingerprints[each] for each in listed), [lab.addresses[each] for each in listed])

    def settings_of(self, lab: SimulatedPool, trust: Trust, *listed: int) -> PoolSettings:
        hosts = [lab.addresses[each] for each in listed]
        return self.settings(lab, trust=trust, hosts=hosts, state_dir=str(self.directory))

    async def started(self, lab: SimulatedPool, trust: Trust, *listed: int) -> Pool:
        pool = Pool(reactor, self.settings_of(lab, trust, *listed), expires=self.expiry.__setitem__)
        self.addCleanup(pool.stop)
        self.addCleanup(lab.faults.lift)
        await pool.start()
        return pool

    async def opened(self, pool: Pool, name: str) -> str:
        """Where the console of this VM was opened."""
        location = await pool.find(name)
        assert isinstance(location, Location), location
        leg = await pool.dial(location, "request")
        assert isinstance(leg, Leg), leg
        self.addCleanup(leg.gone)
        self.addCleanup(leg.abort)
        return location.host_address

    def learnt(self, lab: SimulatedPool) -> dict[str, str]:
        return dict(zip(lab.addresses, map(plain, lab.fingerprints), strict=True))


class LearningTests(CertificatesCase):
    async def test_a_member_is_pinned_through_the_coordinator(self) -> None:
        lab = self.pool()
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: trust.learnt == self.learnt(lab))
        self.assertEqual(await self.opened(pool, "web-2"), lab.addresses[1])

    async def test_another_certificate_than_the_learnt_gets_nothing_and_both_are_named(self) -> None:
        lab = self.pool()
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: trust.learnt)
        location = await pool.find("web-2")
        assert isinstance(location, Location)
        lab.present(lab.addresses[1], certificates()[0])  # even that of another member
        refusal = await pool.dial(location, "request")
        self.assert_refused(refusal, Reason.HYPERVISOR_UNTRUSTED, *lab.fingerprints)

    async def test_a_new_certificate_is_learnt_when_the_pool_tells_of_its_host(self) -> None:
        lab = self.pool()
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: trust.learnt)
        lab.renew_certificate(lab.addresses[1], certificates()[2])
        await self.until(lambda: trust.learnt[lab.addresses[1]] == plain(certificates()[2].fingerprint_sha256))
        self.assertEqual(await self.opened(pool, "web-2"), lab.addresses[1])

    async def test_a_mismatch_has_the_members_looked_at_again(self) -> None:
        lab = self.pool()
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: trust.learnt)
        lab.faults.order_api(EVERYWHERE, ApiFault("event.from", hang=True))  # an event that nobody hears of
        lab.renew_certificate(lab.addresses[1], certificates()[2])
        location = await pool.find("web-2")
        assert isinstance(location, Location)
        await self.answered(lambda: pool.dial(location, "request"), self.is_open)

    def is_open(self, answer: Leg | Refusal) -> bool:
        if isinstance(answer, Leg):
            self.addCleanup(answer.gone)
            self.addCleanup(answer.abort)
            return True
        self.assert_refused(answer, Reason.HYPERVISOR_UNTRUSTED)
        return False

    async def test_the_members_are_looked_at_from_time_to_time(self) -> None:
        self.patch(module, "EVERY", 0.01)
        lab = self.pool()
        looks: list[int] = []
        pool = Pool(reactor, self.settings_of(lab, self.trust(lab, 0), 0), expires=lambda *_: looks.append(1))
        self.addCleanup(pool.stop)
        await pool.start()
        await self.until(lambda: len(looks) > 2)

    async def test_a_member_whose_certificate_cannot_be_had_stays_as_it_was(self) -> None:
        lab = self.pool()
        trust = self.trust(lab, 0)
        await self.started(lab, trust, 0)
        await self.until(lambda: trust.learnt)
        lab.faults.order_api(EVERYWHERE, ApiFault(CALL, failure=("HOST_OFFLINE", "x"), times=1))
        lab.renew_certificate(lab.addresses[1], certificates()[2])
        await self.until(lambda: trust.learnt[lab.addresses[1]] == plain(certificates()[2].fingerprint_sha256))
        self.assertEqual(set(trust.learnt), set(lab.addresses))

    async def test_a_member_that_has_left_is_forgotten(self) -> None:
        lab = self.pool(hosts=3)
        trust = self.trust(lab, 0)
        await self.started(lab, trust, 0)
        await self.until(lambda: len(trust.learnt) == 3)
        lab.state.database.destroy(lab.state.host_at(lab.addresses[2]))
        lab.renew_certificate(lab.addresses[1], certificates()[1])
        await self.until(lambda: set(trust.learnt) == set(lab.addresses[:2]))

    async def test_what_is_no_certificate_is_not_learnt(self) -> None:
        lab = self.pool()
        for xapi in (member.xapi for member in lab._members.values()):
            self.patch(xapi, "_host_certificate", lambda _: b"no certificate")
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: "lab" in self.expiry)
        self.assertEqual((trust.learnt, self.expiry["lab"]), ({}, {}))
        await self.opened(pool, "web-1")

    async def test_expiry_is_told_by_the_hosts_names(self) -> None:
        lab = self.pool()
        await self.started(lab, self.trust(lab, 0), 0)
        await self.until(lambda: self.expiry)
        dates = [x509.load_pem_x509_certificate(each.certificate_pem).not_valid_after_utc for each in certificates()]
        expected = {f"host-{number}": dates[number - 1].timestamp() for number in (1, 2)}
        self.assertEqual(self.expiry, {"lab": expected})


class OtherTrustTests(CertificatesCase):
    async def test_nothing_is_learnt_where_an_authority_vouches(self) -> None:
        lab = self.pool()
        path = self.directory / "authorities.pem"
        path.write_bytes(b"".join(each.certificate_pem for each in certificates()))
        pool = await self.started(lab, Authority(str(path)), 0)
        await self.until(lambda: self.expiry)
        self.assertEqual(set(self.expiry["lab"]), {"host-1", "host-2"})
        await self.opened(pool, "web-2")
        await pool.stop()
        self.assertEqual([each.name for each in self.directory.iterdir()], ["authorities.pem"])

    async def test_nothing_is_asked_where_there_is_no_tls(self) -> None:
        lab = self.pool(plain=True)
        lab.faults.order_api(EVERYWHERE, ApiFault(CALL, failure=("INTERNAL_ERROR", "asked")))
        pool = await self.started(lab, Plain(), 0)
        await self.opened(pool, "web-2")
        await pool.stop()
        self.assertEqual((self.expiry, list(self.directory.iterdir())), ({}, []))


class RememberingTests(CertificatesCase):
    def kept(self) -> dict[str, str] | None:
        """What the file holds; None when it cannot be read."""
        try:
            return PinFile(str(self.directory), "lab").load()
        except PinFileError:
            return None

    async def life(self, lab: SimulatedPool) -> None:
        """One life of the daemon, long enough to learn."""
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: self.kept() == self.learnt(lab))
        await pool.stop()

    async def test_a_restart_after_a_failover_finds_the_new_coordinator(self) -> None:
        lab = self.pool()
        await self.life(lab)
        lab.state.fail_over(lab.state.host_at(lab.addresses[1]))
        for gone in (False, True):
            if gone:
                await lab.lose_host(lab.addresses[0])
            pool = await self.started(lab, self.trust(lab, 0), 0)
            self.assertIsNone(pool.ready())
            self.assertEqual(await self.opened(pool, "web-2"), lab.addresses[1])
            await pool.stop()
            self.assertEqual(lab.state.xapi_sessions, {})

    async def test_without_it_nobody_else_is_believed(self) -> None:
        lab = self.pool()
        lab.state.fail_over(lab.state.host_at(lab.addresses[1]))
        pool = await self.started(lab, self.trust(lab, 0), 0)
        self.assert_refused(pool.ready(), Reason.HYPERVISOR_UNREACHABLE, lab.addresses[1])
        self.assertEqual(lab.connections(lab.addresses[1]), 0)

    async def test_a_remembered_address_with_another_certificate_is_not_believed(self) -> None:
        lab = self.pool()
        await self.life(lab)
        lab.present(lab.addresses[1], certificates()[2])
        lab.state.fail_over(lab.state.host_at(lab.addresses[1]))
        pool = await self.started(lab, self.trust(lab, 0), 0)
        self.assert_refused(
            pool.ready(), Reason.HYPERVISOR_UNTRUSTED, certificates()[2].fingerprint_sha256, lab.fingerprints[1]
        )
        self.assertEqual(lab.state.xapi_sessions, {})

    async def test_a_failover_during_life_goes_to_a_member_that_was_not_listed(self) -> None:
        lab = self.pool()
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: trust.learnt)
        lab.state.fail_over(lab.state.host_at(lab.addresses[1]))
        await lab.lose_host(lab.addresses[0])
        await self.answered(lambda: pool.find("web-9"), lambda answer: answer.reason is Reason.VM_NOT_FOUND)  # type: ignore[union-attr]
        self.assertEqual(await self.opened(pool, "web-2"), lab.addresses[1])

    async def test_a_file_that_is_damaged_is_one_warning_and_written_anew(self) -> None:
        lab = self.pool()
        path = self.directory / "pins-lab.json"
        path.write_text("{")
        path.chmod(0o600)
        await self.life(lab)
        self.assertEqual(len(self.warnings), 1, self.warnings)
        self.assertIn(str(path), self.warnings[0])

    async def test_a_directory_that_cannot_be_written_is_one_warning(self) -> None:
        self.directory.rmdir()
        lab = self.pool()
        trust = self.trust(lab, 0)
        pool = await self.started(lab, trust, 0)
        await self.until(lambda: self.warnings)
        lab.renew_certificate(lab.addresses[1], certificates()[2])
        await self.until(lambda: trust.learnt[lab.addresses[1]] == plain(certificates()[2].fingerprint_sha256))
        self.assertEqual(await self.opened(pool, "web-2"), lab.addresses[1])
        self.assertEqual(len(self.warnings), 1, self.warnings)

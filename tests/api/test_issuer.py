"""Issuing: what is stored, what is handed out, and what is refused."""

from twisted.internet.defer import CancelledError, Deferred, succeed

from tests.api.asking import NOW, WEB, ApiTestCase
from tests.ops.test_metrics import value_of
from xvpd.api.auth import Caller, Role
from xvpd.api.issuer import Issued, Order, Terms
from xvpd.grants.grant import Grant, digest
from xvpd.reason import Reason, Refusal

PORTAL = Caller("portal", Role.ISSUER)


class IssuerTests(ApiTestCase):
    terms = Terms(ttl=600, uses=3, resume=60, max_duration=3600)

    def issue(self, order: Order) -> Issued | Refusal:
        """The outcome of an order, at once."""
        return self.successResultOf(self.issuer.issue(PORTAL, order))

    def issued(self, order: Order) -> Issued:
        """The same, when it is not refused."""
        issued = self.issue(order)
        assert isinstance(issued, Issued), issued
        return issued

    def stored(self) -> list[Grant]:
        """What is in the store."""
        grants = self.successResultOf(self.store.grants(None))
        assert not isinstance(grants, Refusal)
        return grants

    def test_a_url_leads_to_the_vm(self) -> None:
        for vm in (WEB.vm_name, WEB.vm_uuid):
            issued = self.issued(Order(vm, "xvpvnc", user="alice"))
            self.assertEqual((issued.grant.vm_uuid, issued.grant.vm_name), (WEB.vm_uuid, WEB.vm_name))
            self.assertEqual((issued.grant.issuer, issued.grant.user), ("portal", "alice"))

    def test_the_urls_token_redeems_to_the_grant(self) -> None:
        issued = self.issued(Order("web-1", "xvpvnc"))
        base, _, token = issued.url.partition("?token=")
        self.assertEqual(base, "https://console.example.org:6081/console")
        self.assertEqual(len(token), 43)
        redeemed = self.successResultOf(self.store.redeem(digest(token), "session", "192.0.2.7"))
        self.assertEqual(redeemed, issued.grant)

    def test_the_clear_token_is_in_the_url_alone(self) -> None:
        issued = self.issued(Order("web-1", "xvpvnc"))
        token = issued.url.partition("?token=")[2]
        self.assertNotIn(token, repr(issued))
        self.assertNotIn(token, repr(self.stored()))

    def test_terms_hold_unless_the_order_asks_for_less(self) -> None:
        grant = self.issued(Order("web-1", "xvpvnc")).grant
        self.assertEqual((grant.issued_at, grant.expires_at, grant.uses, grant.resume), (NOW, NOW + 600, 3, 60))
        grant = self.issued(Order("web-1", "xvpvnc", ttl=30, uses=1)).grant
        self.assertEqual((grant.expires_at, grant.uses), (NOW + 30, 1))
        self.assertEqual(self.issued(Order("web-1", "xvpvnc", uses=0)).grant.uses, 0)

    def test_no_order_outlives_the_terms(self) -> None:
        self.assertEqual(self.issued(Order("web-1", "xvpvnc", ttl=6000)).grant.expires_at, NOW + 600)
        for asked, given in ((None, 3600), (60.0, 60), (9000.0, 3600)):
            self.assertEqual(self.issued(Order("web-1", "xvpvnc", max_duration=asked)).grant.max_duration, given)

    def test_without_a_max_duration_in_the_terms_the_orders_holds(self) -> None:
        self.issuer.terms = Terms(ttl=600, uses=3, resume=60)
        for asked, given in ((None, 0), (9000.0, 9000)):
            self.assertEqual(self.issued(Order("web-1", "xvpvnc", max_duration=asked)).grant.max_duration, given)

    def test_the_orders_network_is_the_grants(self) -> None:
        self.assertEqual(self.issued(Order("web-1", "xvpvnc", client="10.0.0.0/8")).grant.client, "10.0.0.0/8")

    def test_what_the_hypervisor_refuses_is_refused_and_nothing_is_stored(self) -> None:
        for reason in (Reason.VM_NOT_FOUND, Reason.VM_AMBIGUOUS, Reason.VM_NOT_RUNNING, Reason.HYPERVISOR_UNREACHABLE):
            self.vms.known["x"] = Refusal(reason, "why")
            self.assertEqual(self.issue(Order("x", "xvpvnc")), Refusal(reason, "why"))
        self.assertEqual(self.stored(), [])

    def test_nothing_is_issued_while_draining(self) -> None:
        self.draining = True
        self.assertEqual(self.issue(Order("web-1", "xvpvnc")), Refusal(Reason.DRAINING))
        self.assertEqual(self.stored(), [])
        self.assertEqual(value_of(self.metrics, "xvpd_grants_issued_total", type="xvpvnc", result="draining"), 1)

    def test_a_console_that_is_not_located_in_time_is_refused(self) -> None:
        self.vms.silent.add("slow")
        issuing = self.issuer.issue(PORTAL, Order("slow", "xvpvnc"))
        self.clock.advance(29)
        self.assertNoResult(issuing)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(issuing), Refusal(Reason.HYPERVISOR_SLOW, "no answer within 30 s"))
        self.assertEqual(self.vms.cancelled, ["slow"])
        self.assertEqual(self.stored(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_cancels_the_search(self) -> None:
        self.vms.silent.add("slow")
        issuing = self.issuer.issue(PORTAL, Order("slow", "xvpvnc"))
        issuing.cancel()
        self.failureResultOf(issuing, CancelledError)
        self.assertEqual(self.vms.cancelled, ["slow"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_the_store_refuses_is_refused(self) -> None:
        def away(_: Grant) -> Deferred[Refusal | None]:
            return succeed(Refusal(Reason.STORE_AWAY))

        self.patch(self.store, "issue", away)
        self.assertEqual(self.issue(Order("web-1", "xvpvnc")), Refusal(Reason.STORE_AWAY))

    def test_every_order_is_counted_with_its_result(self) -> None:
        self.issued(Order("web-1", "xvpvnc"))
        self.issued(Order("web-1", "xvpvnc"))
        self.issue(Order("web-2", "xvpvnc"))
        self.assertEqual(value_of(self.metrics, "xvpd_grants_issued_total", type="xvpvnc", result="issued"), 2)
        self.assertEqual(value_of(self.metrics, "xvpd_grants_issued_total", type="xvpvnc", result="vm_not_found"), 1)

    def test_no_two_urls_are_the_same(self) -> None:
        first, second = self.issued(Order("web-1", "xvpvnc")), self.issued(Order("web-1", "xvpvnc"))
        self.assertNotEqual(first.url, second.url)
        self.assertNotEqual(first.grant.id, second.grant.id)

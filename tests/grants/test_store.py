"""`xvpd.grants.store`: what selectors mean."""

from twisted.trial.unittest import SynchronousTestCase

from tests.grants.samples import a_grant, a_session
from xvpd.grants.store import Selector
from xvpd.reason import Reason

GRANT = a_grant(id="g", vm_uuid="v", issuer="portal", user="ann")
SESSION = a_session("s", GRANT)


class SelectorTests(SynchronousTestCase):
    """A selector means exactly what it names."""

    def test_matches_by_each_kind(self) -> None:
        for kind, value in (("grant", "g"), ("digest", GRANT.digest), ("vm", "v"), ("user", "ann"), ("session", "s")):
            self.assertTrue(Selector(kind, value).matches(SESSION), kind)
            self.assertTrue(Selector(kind, value, "portal").matches(SESSION), kind)
            self.assertFalse(Selector(kind, value, "stranger").matches(SESSION), kind)
            self.assertFalse(Selector(kind, "other").matches(SESSION), kind)

    def test_a_value_of_one_kind_means_nothing_in_another(self) -> None:
        for kind in Selector.KINDS:
            values = {"grant": "g", "digest": GRANT.digest, "vm": "v", "user": "ann", "session": "s"}
            for other in set(values) - {kind}:
                self.assertFalse(Selector(kind, values[other]).matches(SESSION), (kind, other))

    def test_a_session_selector_means_no_grant(self) -> None:
        self.assertFalse(Selector("session", "s").matches_grant(GRANT))

    def test_a_user_is_one_issuers_user(self) -> None:
        self.assertTrue(Selector.of_user("portal", "ann").matches(SESSION))
        self.assertFalse(Selector.of_user("stranger", "ann").matches(SESSION))
        self.assertFalse(Selector.of_user("portal/ann", "").matches(SESSION))

    def test_sessions_are_killed_and_grants_revoked(self) -> None:
        self.assertIs(Selector("session", "s").cuts_with, Reason.KILLED)
        self.assertIs(Selector("vm", "v").cuts_with, Reason.REVOKED)

    def test_refuses_a_kind_that_does_not_exist(self) -> None:
        with self.assertRaisesRegex(ValueError, "no such kind of selector: host"):
            Selector("host", "h")

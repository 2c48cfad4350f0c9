"""`xvpd.grants.records`: grants and sessions as JSON, there and back."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.grants.samples import a_grant, a_session
from xvpd.grants.grant import Grant
from xvpd.grants.records import (
    grant_from_json,
    grant_to_json,
    message,
    message_from,
    selector_from_json,
    selector_to_json,
    session_from_json,
    session_to_json,
)
from xvpd.grants.store import Activity, Selector, Session

GRANT = a_grant()
SESSION = a_session("s1", GRANT)


class RecordTests(SynchronousTestCase):
    """What was kept comes back as it was, or not at all."""

    @given(st.builds(Grant, client=st.text(), max_duration=st.floats(0, 1e12)))
    def test_a_grant_comes_back_as_it_was(self, grant: Grant) -> None:
        if all(abs(number) < float("inf") for number in (grant.issued_at, grant.expires_at, grant.resume)):
            self.assertEqual(grant_from_json(grant_to_json(grant).encode()), grant)

    @given(st.builds(Session, since=st.floats(0, 1e12), grant=st.just(GRANT), pool=st.text()), st.integers(0, 2**60))
    def test_a_session_comes_back_as_it_was(self, session: Session, count: int) -> None:
        activity = Activity(count, count // 2, 12.5)
        self.assertEqual(session_from_json(session_to_json(session, activity).encode()), (session, activity))

    @given(st.builds(Selector, kind=st.sampled_from(Selector.KINDS)))
    def test_a_selector_comes_back_as_it_was(self, selector: Selector) -> None:
        told = message_from(message(order=selector_to_json(selector)).encode())
        self.assertEqual(selector_from_json(told["order"]), selector)

    def test_is_one_line_of_ascii(self) -> None:
        text = grant_to_json(a_grant(vm_name="Łódź\r\n\u2028", user="\0"))
        self.assertTrue(text.isascii())
        self.assertTrue(text.isprintable())

    def test_a_grant_with_a_restriction_that_is_not_known_here_is_not_read(self) -> None:
        told = json.loads(grant_to_json(GRANT)) | {"only_on_sundays": True}
        self.assertIsNone(grant_from_json(json.dumps(told).encode()))

    def test_what_makes_no_sense_is_not_read(self) -> None:
        whole = json.loads(session_to_json(SESSION, Activity()))
        broken = (
            "",
            "{",
            "[]",
            "null",
            "\xff",
            "[" * 100_000,
            json.dumps({}),
            json.dumps({"id": 7}),
            json.dumps(json.loads(grant_to_json(GRANT)) | {"uses": "many"}),
            json.dumps(whole | {"session": None}),
            json.dumps(whole | {"activity": None}),
            json.dumps(whole | {"session": whole["session"] | {"grant": None}}),
            json.dumps(whole | {"session": whole["session"] | {"node": None}}),
        )
        for text in broken:
            self.assertIsNone(grant_from_json(text.encode("latin-1")), text[:40])
            self.assertIsNone(session_from_json(text.encode("latin-1")), text[:40])
        orders: tuple[object, ...] = (None, [], {}, {"kind": "vm"}, {"kind": "host", "value": "h"}, {"kind": "vm", "value": 7})
        for told in orders:
            self.assertIsNone(selector_from_json(told))

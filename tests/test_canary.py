"""The search for secrets finds them: a search that cannot fail proves nothing."""

import base64
import html
import json
from urllib.parse import quote, urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.canary import Canary

SECRET = "OpaqueRef:9c/2+e?<&>'\"é~"


class CanaryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.canary = Canary()
        self.log = Logger(namespace="canary")

    def assert_found(self, where: str, how: str) -> None:
        with self.assertRaisesRegex(AssertionError, f"{where}, {how}"):
            self.canary.assert_no_secret(SECRET)

    def test_nothing_kept_proves_nothing(self) -> None:
        with self.assertRaisesRegex(AssertionError, "nothing was kept"):
            self.canary.assert_no_secret(SECRET)

    def test_what_holds_no_secret_passes(self) -> None:
        self.canary.watch_log(self)
        self.log.info("a request for {vm}", vm="test-vm-01")
        self.canary.keep("a reply", b"HTTP/1.1 200 OK\r\n\r\n")
        self.canary.assert_no_secret(SECRET, "another secret")

    def test_a_secret_that_is_found_by_chance_is_a_mistake_of_the_test(self) -> None:
        self.canary.keep("a reply", b"")
        with self.assertRaises(ValueError):
            self.canary.assert_no_secret("short")

    def test_any_of_many_secrets_is_found_in_any_of_many_texts(self) -> None:
        for text in ("one", f"two {SECRET}", "three"):
            self.canary.keep("a record", text)
        with self.assertRaisesRegex(AssertionError, "a record, in clear"):
            self.canary.assert_no_secret("another secret", SECRET)

    def test_formatted_log(self) -> None:
        self.canary.watch_log(self)
        self.log.info("it was {what}", what=SECRET)
        self.assert_found("the log", "in clear")

    def test_log_value_that_the_format_does_not_use(self) -> None:
        self.canary.watch_log(self)
        self.log.info("nothing to see", unused=[SECRET])
        self.assert_found("the log event's unused", "as part of")

    def test_logged_exception(self) -> None:
        self.canary.watch_log(self)
        try:
            raise ValueError(SECRET)
        except ValueError:
            self.log.failure("it failed")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assert_found("the log event's log_failure", "in clear")

    def test_the_log_is_watched_until_the_end_of_the_test(self) -> None:
        case = SynchronousTestCase()
        self.canary.watch_log(case)
        case.doCleanups()
        self.log.info(SECRET)
        with self.assertRaisesRegex(AssertionError, "nothing was kept"):
            self.canary.assert_no_secret(SECRET)

    def test_disguises(self) -> None:
        for how, text in (
            ("as part of a URL", f"/console?token={quote(SECRET)}"),
            ("as part of a URL", f"/console?token={quote(SECRET, safe='')}"),
            ("as part of a URL", urlencode({"token": SECRET, "other": ""})),
            ("as part of JSON", json.dumps({"token": SECRET})),
            ("as part of HTML", f"<p>{html.escape(SECRET)}</p>"),
            ("as part of a repr", repr({"cookie": SECRET})),
            ("in hex", SECRET.encode().hex()),
        ):
            self.canary = Canary()
            self.canary.keep("a reply", text)
            with self.subTest(how=how):
                self.assert_found("a reply", how)

    def test_bytes_are_searched(self) -> None:
        self.canary.keep("a reply", b"\xff\x00" + SECRET.encode())
        self.assert_found("a reply", "in clear")

    @given(st.text(max_size=5), st.text(max_size=5))
    def test_base64_of_something_longer(self, before: str, behind: str) -> None:
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            canary = Canary()
            canary.keep("a header", encode(f"{before}{SECRET}{behind}".encode()))
            with self.assertRaisesRegex(AssertionError, "a header, in base64"):
                canary.assert_no_secret(SECRET)

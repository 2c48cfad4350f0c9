"""Dialogues, line by line: THEY is the peer, WE is xvpd."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.reason import Reason, Refusal
from xvpd.rfb.opening import NAME_LIMIT, REASON_LIMIT, ClientOpening, HypervisorOpening

THEY, WE = "they", "we"
Dialogue = list[tuple[str, bytes]]

NAME = b"a VM"
SERVER_INIT = bytes.fromhex("0280 01e0 20 18 00 01 00ff 00ff 00ff 10 08 00 000000") + len(NAME).to_bytes(4, "big") + NAME

HYPERVISORS: dict[str, Dialogue] = {
    "3.3": [(THEY, b"RFB 003.003\n"), (WE, b"RFB 003.003\n"), (THEY, b"\0\0\0\1")],
    "3.7": [(THEY, b"RFB 003.007\n"), (WE, b"RFB 003.007\n"), (THEY, b"\1\1"), (WE, b"\1")],
    "3.8": [(THEY, b"RFB 003.008\n"), (WE, b"RFB 003.008\n"), (THEY, b"\1\1"), (WE, b"\1"), (THEY, b"\0\0\0\0")],
}
"""Up to ClientInit."""

CLIENTS: dict[str, Dialogue] = {
    "3.3": [(WE, b"RFB 003.008\n"), (THEY, b"RFB 003.003\n"), (WE, b"\0\0\0\1")],
    "3.7": [(WE, b"RFB 003.008\n"), (THEY, b"RFB 003.007\n"), (WE, b"\1\1"), (THEY, b"\1")],
    "3.8": [(WE, b"RFB 003.008\n"), (THEY, b"RFB 003.008\n"), (WE, b"\1\1"), (THEY, b"\1"), (WE, b"\0\0\0\0")],
}
"""Up to ClientInit."""


class Playing(SynchronousTestCase):
    def play(self, opening: HypervisorOpening | ClientOpening, dialogue: Dialogue) -> None:
        """Speak the peer's lines, and hold xvpd to its own: word for word, and not before they are due."""
        heard = opening.greeting if isinstance(opening, ClientOpening) else b""
        for number, (who, line) in enumerate(dialogue):
            if who == WE:
                self.assertEqual(heard, line, f"line {number}")
                heard = b""
            else:
                self.assertEqual(heard, b"", f"xvpd spoke before line {number}")
                heard = self.answer(opening, line)
        self.assertEqual(heard, b"", "xvpd spoke after the last line")

    def answer(self, opening: HypervisorOpening | ClientOpening, line: bytes) -> bytes:
        answer = opening.receive(line)
        if isinstance(answer, Refusal):
            self.fail(f"xvpd refused: {answer}")
        return answer

    def refused(self, opening: HypervisorOpening | ClientOpening, lines: bytes, reason: Reason) -> str:
        """The detail of the refusal, which is the same whether the peer's lines come whole or a byte at a time."""
        refusal = opening.receive(lines)
        assert isinstance(refusal, Refusal), refusal
        self.assertIs(refusal.reason, reason)
        self.assertEqual(opening.waiting_for, "")
        again = type(opening)()
        answers = [again.receive(bytes([byte])) for byte in lines]
        self.assertEqual(answers[-1], refusal)
        self.assertEqual(again.receive(b"more"), refusal)
        return refusal.detail


class TestHypervisorOpening(Playing):
    def opened(self, version: str = "3.8") -> HypervisorOpening:
        """An opening that has got as far as `ready`."""
        opening = HypervisorOpening()
        self.play(opening, HYPERVISORS[version])
        self.assertTrue(opening.ready)
        return opening

    def test_each_version_gets_to_the_server_init(self) -> None:
        for version in HYPERVISORS:
            opening = self.opened(version)
            self.assertEqual(opening.client_init(shared=True), b"\1")
            self.play(opening, [(THEY, SERVER_INIT)])
            self.assertEqual(opening.server_init, SERVER_INIT)
            self.assertEqual(opening.trailing, b"")
            self.assertEqual(opening.waiting_for, "")

    def test_it_is_ready_only_between_security_and_client_init(self) -> None:
        opening = HypervisorOpening()
        for who, line in HYPERVISORS["3.8"]:
            self.assertFalse(opening.ready)
            if who == THEY:
                opening.receive(line)
        self.assertTrue(opening.ready)
        opening.client_init(shared=True)
        self.assertFalse(opening.ready)

    def test_client_init_at_another_time_is_a_bug(self) -> None:
        self.assertRaises(RuntimeError, HypervisorOpening().client_init, shared=True)
        opening = self.opened()
        opening.client_init(shared=True)
        self.assertRaises(RuntimeError, opening.client_init, shared=True)

    def test_taking_over_asks_for_the_console_alone(self) -> None:
        self.assertEqual(self.opened().client_init(shared=False), b"\0")

    def test_it_never_answers_with_more_than_the_server_named(self) -> None:
        for named, answer in (
            (b"RFB 003.004\n", b"RFB 003.003\n"),
            (b"RFB 003.005\n", b"RFB 003.003\n"),
            (b"RFB 003.006\n", b"RFB 003.003\n"),
            (b"RFB 003.009\n", b"RFB 003.008\n"),
            (b"RFB 003.889\n", b"RFB 003.008\n"),
            (b"RFB 004.001\n", b"RFB 003.008\n"),
            (b"RFB 005.000\n", b"RFB 003.008\n"),
        ):
            self.play(HypervisorOpening(), [(THEY, named), (WE, answer)])

    def test_what_is_no_rfb_server_is_refused_and_quoted(self) -> None:
        for banner in (b"HTTP/1.1 200 OK\r\n", b"RFB 003.002\n", b"RFB 000.000\n", b"\0" * 12, b"SSH-2.0-OpenSSH_9.2"):
            opening = HypervisorOpening()
            refusal = opening.receive(banner)
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.reason, Reason.HYPERVISOR_PROTOCOL)
            self.assertIn(repr(banner[:12]), refusal.detail)

    def test_none_is_chosen_among_other_types(self) -> None:
        self.play(
            HypervisorOpening(),
            [(THEY, b"RFB 003.008\n"), (WE, b"RFB 003.008\n"), (THEY, b"\3\2\x13\1"), (WE, b"\1"), (THEY, b"\0\0\0\0")],
        )

    def test_a_server_that_wants_a_password_is_refused(self) -> None:
        detail = self.refused(HypervisorOpening(), b"RFB 003.003\n\0\0\0\2", Reason.HYPERVISOR_PROTOCOL)
        self.assertIn("security type 2", detail)
        detail = self.refused(HypervisorOpening(), b"RFB 003.007\n\2\2\x13", Reason.HYPERVISOR_PROTOCOL)
        self.assertIn("[2, 19]", detail)

    def test_a_long_list_of_types_is_read_and_not_repeated_at_length(self) -> None:
        lines = b"RFB 003.008\n\xff" + b"\2" * 255
        self.assertLess(len(self.refused(HypervisorOpening(), lines, Reason.HYPERVISOR_PROTOCOL)), 100)

    def test_a_failure_gives_its_reason_at_each_place_it_may_come(self) -> None:
        said = b"\0\0\0\x10Too many clients"
        for lines in (
            b"RFB 003.003\n\0\0\0\0",
            b"RFB 003.007\n\0",
            b"RFB 003.008\n\0",
            b"RFB 003.008\n\1\1\0\0\0\1",
            b"RFB 003.008\n\1\1\0\0\0\2",
        ):
            detail = self.refused(HypervisorOpening(), lines + said, Reason.HYPERVISOR_REFUSED)
            self.assertIn("'Too many clients'", detail)

    def test_a_failure_may_have_no_reason(self) -> None:
        detail = self.refused(HypervisorOpening(), b"RFB 003.008\n\0\0\0\0\0", Reason.HYPERVISOR_REFUSED)
        self.assertIn("''", detail)

    def test_of_a_huge_reason_the_beginning_is_enough(self) -> None:
        opening = HypervisorOpening()
        opening.receive(b"RFB 003.008\n\0\xff\xff\xff\xff" + b"x" * (REASON_LIMIT - 1))
        self.assertEqual(opening.waiting_for, "a reason")
        refusal = opening.receive(b"x" + b"y" * 1000)
        assert isinstance(refusal, Refusal)
        self.assertIn("x" * REASON_LIMIT, refusal.detail)
        self.assertNotIn("y", refusal.detail.removeprefix("refused the console: "))

    def test_a_reason_cannot_write_lines_into_the_log(self) -> None:
        lines = b"RFB 003.008\n\0\0\0\0\x0a" + b"\r\n\x1b[2J\xff\0\x7f\t"
        detail = self.refused(HypervisorOpening(), lines, Reason.HYPERVISOR_REFUSED)
        self.assertEqual([c for c in detail if not c.isprintable()], [])

    def test_a_name_up_to_the_limit_is_taken(self) -> None:
        opening = self.opened()
        opening.client_init(shared=True)
        server_init = SERVER_INIT[:20] + NAME_LIMIT.to_bytes(4, "big") + b"n" * NAME_LIMIT
        self.play(opening, [(THEY, server_init)])
        self.assertEqual(opening.server_init, server_init)

    def test_a_longer_name_is_refused_as_soon_as_it_is_announced(self) -> None:
        for length in (NAME_LIMIT + 1, 2**32 - 1):
            opening = self.opened()
            opening.client_init(shared=True)
            refusal = opening.receive(SERVER_INIT[:20] + length.to_bytes(4, "big"))
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.reason, Reason.HYPERVISOR_PROTOCOL)
            self.assertIsNone(opening.server_init)

    def test_a_desktop_may_have_no_name(self) -> None:
        opening = self.opened()
        opening.client_init(shared=True)
        self.play(opening, [(THEY, SERVER_INIT[:20] + bytes(4))])
        self.assertEqual(opening.server_init, SERVER_INIT[:20] + bytes(4))

    def test_pixels_right_behind_server_init_are_kept(self) -> None:
        opening = self.opened()
        opening.client_init(shared=True)
        self.play(opening, [(THEY, SERVER_INIT + b"\0\0pixels"), (THEY, b" and more")])
        self.assertEqual(opening.server_init, SERVER_INIT)
        self.assertEqual(opening.trailing, b"\0\0pixels and more")

    def test_a_server_that_speaks_ahead_of_client_init_is_refused(self) -> None:
        for version in HYPERVISORS:
            opening = self.opened(version)
            refusal = opening.receive(SERVER_INIT)
            assert isinstance(refusal, Refusal)
            self.assertIs(refusal.reason, Reason.HYPERVISOR_PROTOCOL)
            self.assertFalse(opening.ready)
            self.assertRaises(RuntimeError, opening.client_init, shared=True)

    def test_it_says_what_it_waits_for(self) -> None:
        opening = HypervisorOpening()
        waited = [opening.waiting_for]
        for who, line in HYPERVISORS["3.8"]:
            if who == THEY:
                opening.receive(line)
                waited.append(opening.waiting_for)
        opening.client_init(shared=True)
        waited.append(opening.waiting_for)
        self.assertEqual(
            waited, ["the RFB version", "the number of security types", "the security result", "nothing", "ServerInit"]
        )


class TestClientOpening(Playing):
    def test_each_version_gets_to_client_init(self) -> None:
        for version, dialogue in CLIENTS.items():
            opening = ClientOpening()
            self.play(opening, dialogue)
            self.assertIsNone(opening.shared, version)
            self.play_on(opening, b"\1")
            self.assertIs(opening.shared, True)

    def play_on(self, opening: ClientOpening, line: bytes) -> None:
        self.assertEqual(self.answer(opening, line), b"")

    def test_the_flag_is_shared_unless_it_is_zero(self) -> None:
        for flag, shared in ((b"\0", False), (b"\1", True), (b"\xff", True)):
            opening = ClientOpening()
            self.play(opening, CLIENTS["3.3"])
            self.play_on(opening, flag)
            self.assertIs(opening.shared, shared)

    def test_versions_between_the_published_ones_are_the_older_one(self) -> None:
        for minor in (b"4", b"5", b"6"):
            self.play(ClientOpening(), [(WE, b"RFB 003.008\n"), (THEY, b"RFB 003.00" + minor + b"\n"), (WE, b"\0\0\0\1")])

    def test_a_version_that_was_not_offered_is_refused(self) -> None:
        for version in (b"RFB 003.009\n", b"RFB 003.889\n", b"RFB 004.000\n", b"RFB 003.002\n", b"RFB 002.008\n"):
            detail = self.refused(ClientOpening(), version, Reason.CLIENT_PROTOCOL)
            self.assertIn(repr(version), detail)

    def test_garbage_for_a_version_is_refused(self) -> None:
        for banner in (b"GET / HTTP/1.1\r\n"[:12], b"\x16\x03\x01" + bytes(9), b"\xff" * 12):
            self.refused(ClientOpening(), banner, Reason.CLIENT_PROTOCOL)

    def test_a_security_type_that_was_not_offered_is_refused(self) -> None:
        for version in (b"RFB 003.007\n", b"RFB 003.008\n"):
            for chosen in (b"\0", b"\2", b"\xff"):
                detail = self.refused(ClientOpening(), version + chosen, Reason.CLIENT_PROTOCOL)
                self.assertIn(str(chosen[0]), detail)

    def test_messages_right_behind_client_init_are_kept(self) -> None:
        opening = ClientOpening()
        self.play(opening, CLIENTS["3.8"])
        self.play_on(opening, b"\1\2\0\0\0")
        self.play_on(opening, b"early")
        self.assertIs(opening.shared, True)
        self.assertEqual(opening.trailing, b"\2\0\0\0early")

    def test_a_client_that_does_not_wait_is_understood(self) -> None:
        opening = ClientOpening()
        self.assertEqual(opening.receive(b"RFB 003.008\n\1\1early"), b"\1\1\0\0\0\0")
        self.assertIs(opening.shared, True)
        self.assertEqual(opening.trailing, b"early")

    def test_a_viewer_of_3_8_can_be_told_why_until_its_security_result(self) -> None:
        told = b"\0\0\0\1\0\0\0\x04why."
        opening = ClientOpening()
        self.assertEqual(opening.farewell("why."), b"")
        opening.receive(b"RFB 003.008\n")
        self.assertEqual(opening.farewell("why."), told)
        opening.receive(b"\2")
        self.assertEqual(opening.farewell("why."), told)

    def test_the_farewell_to_a_viewer_that_did_not_wait_says_first_what_it_has_not_heard(self) -> None:
        opening = ClientOpening()
        self.assertIsInstance(opening.receive(b"RFB 003.008\n\2"), Refusal)
        self.assertEqual(opening.farewell("why."), b"\1\1\0\0\0\1\0\0\0\4why.")

    def test_other_viewers_cannot_be_told(self) -> None:
        for version, dialogue in CLIENTS.items():
            opening = ClientOpening()
            self.play(opening, dialogue)
            self.assertEqual(opening.farewell("why."), b"", version)
        for lines in (b"RFB 003.007\n", b"RFB 003.007\n\2", b"RFB 003.003\n", b"RFB 009.009\n"):
            opening = ClientOpening()
            opening.receive(lines)
            self.assertEqual(opening.farewell("why."), b"", lines)


class TestBothOpenings(Playing):
    def test_every_client_version_meets_every_hypervisor_version(self) -> None:
        for client_version, hypervisor_version in product(CLIENTS, HYPERVISORS):
            hypervisor, client = HypervisorOpening(), ClientOpening()
            self.play(hypervisor, HYPERVISORS[hypervisor_version])
            self.play(client, [*CLIENTS[client_version], (THEY, b"\0")])
            self.assertIs(client.shared, False)
            self.assertEqual(hypervisor.client_init(shared=True), b"\1")
            self.play(hypervisor, [(THEY, SERVER_INIT)])
            self.assertEqual(hypervisor.server_init, SERVER_INIT, f"{client_version} with {hypervisor_version}")

    @settings(deadline=None)
    @given(st.sampled_from(sorted(HYPERVISORS)), st.data())
    def test_how_the_hypervisors_bytes_are_cut_changes_nothing(self, version: str, data: st.DataObject) -> None:
        lines = b"".join(line for who, line in HYPERVISORS[version] if who == THEY)
        answers = b"".join(line for who, line in HYPERVISORS[version] if who == WE)
        opening = HypervisorOpening()
        self.assertEqual(self.spoken(opening, lines, data), answers)
        self.assertTrue(opening.ready)
        opening.client_init(shared=True)
        self.assertEqual(self.spoken(opening, SERVER_INIT + b"trailing", data), b"")
        self.assertEqual((opening.server_init, opening.trailing), (SERVER_INIT, b"trailing"))

    @settings(deadline=None)
    @given(st.sampled_from(sorted(CLIENTS)), st.data())
    def test_how_the_clients_bytes_are_cut_changes_nothing(self, version: str, data: st.DataObject) -> None:
        lines = b"".join(line for who, line in CLIENTS[version] if who == THEY)
        answers = b"".join(line for who, line in CLIENTS[version] if who == WE)
        opening = ClientOpening()
        self.assertEqual(opening.greeting + self.spoken(opening, lines + b"\1trailing", data), answers)
        self.assertEqual((opening.shared, opening.trailing), (True, b"trailing"))

    @settings(deadline=None)
    @given(
        st.sampled_from([HypervisorOpening, ClientOpening]),
        st.sampled_from([b"", b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"]),
        st.lists(st.binary(max_size=40)),
    )
    def test_any_bytes_get_an_answer_or_a_refusal(
        self, kind: type[HypervisorOpening | ClientOpening], version: bytes, pieces: list[bytes]
    ) -> None:
        opening = kind()
        for piece in (version, *pieces):
            answer = opening.receive(piece)
            if isinstance(opening, HypervisorOpening) and opening.ready:
                opening.client_init(shared=True)
            if isinstance(answer, Refusal):
                self.assertIn(answer.reason.name.split("_")[0], ("HYPERVISOR", "CLIENT"))
                return
            self.assertLessEqual(len(answer), 16)

    def spoken(self, opening: HypervisorOpening | ClientOpening, lines: bytes, data: st.DataObject) -> bytes:
        """xvpd's answers to ``lines``, cut up somehow."""
        cuts = sorted(data.draw(st.lists(st.integers(0, len(lines)))))
        edges = zip([0, *cuts], [*cuts, len(lines)], strict=True)
        return b"".join(self.answer(opening, lines[start:end]) for start, end in edges)

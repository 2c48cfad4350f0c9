from twisted.trial.unittest import SynchronousTestCase

from xvpd.rfb.xvp import FAIL, INIT, PowerRequest, request_in


class TestXvp(SynchronousTestCase):
    def test_the_server_says_four_bytes(self) -> None:
        self.assertEqual((INIT, FAIL), (b"\xfa\0\1\1", b"\xfa\0\1\0"))

    def test_a_client_asks_for_one_of_three_things(self) -> None:
        self.assertIs(request_in(b"\xfa\0\1\2"), PowerRequest.SHUTDOWN)
        self.assertIs(request_in(b"\xfa\0\1\3"), PowerRequest.REBOOT)
        self.assertIs(request_in(b"\xfa\0\1\4"), PowerRequest.RESET)

    def test_padding_means_nothing(self) -> None:
        self.assertIs(request_in(b"\xfa\xff\1\4"), PowerRequest.RESET)

    def test_other_codes_and_versions_ask_for_nothing(self) -> None:
        for message in (b"\xfa\0\1\0", b"\xfa\0\1\1", b"\xfa\0\1\5", b"\xfa\0\1\xff", b"\xfa\0\0\2", b"\xfa\0\2\2"):
            self.assertIsNone(request_in(message))

"""`xvpd.xen.syntax`: what may stand in bytes of ours."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.xen.syntax import NULL_REF, bracketed, canonical, is_address, is_ip, is_ref, is_uuid

UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


class SyntaxTests(SynchronousTestCase):
    def test_references(self) -> None:
        for good in (f"OpaqueRef:{UUID}", NULL_REF):
            self.assertTrue(is_ref(good), good)
        for bad in (
            "",
            UUID,
            "OpaqueRef:",
            f"OpaqueRef:{UUID}\n",
            f"opaqueref:{UUID}",
            "OpaqueRef:a b",
            "OpaqueRef:" + "a" * 71,
        ):
            self.assertFalse(is_ref(bad), bad)

    def test_uuids(self) -> None:
        self.assertTrue(is_uuid(UUID))
        for bad in ("", UUID.upper(), UUID[:-1], UUID + "0", UUID + "\n", UUID.replace("-", "")):
            self.assertFalse(is_uuid(bad), bad)

    def test_addresses(self) -> None:
        for good in ("10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "xen-1", "xen-1.Example.org", "a" * 63 + ".b"):
            self.assertTrue(is_address(good), good)
        for bad in (
            "",
            "-xen",
            "xen-",
            "a..b",
            "xen.",
            ".xen",
            "xen_1",
            "10.0.0.1:443",
            "[fd00::1]",
            "fe80::1%eth0",
            "fe80::1%a b",
            "xen\n",
            "xen 1",
            "a" * 64,
            "a." * 127 + "a",
            "xén",
            "http://xen",
        ):
            self.assertFalse(is_address(bad), bad)

    @given(st.text())
    def test_what_passes_is_plain_ascii_without_separators(self, text: str) -> None:
        if is_ref(text) or is_address(text) or is_uuid(text):
            self.assertTrue(text.isascii() and text.isprintable())
            self.assertFalse(set(text) & set(" ;&?#/@\"'\\%,="))

    def test_ip_addresses_are_told_from_names(self) -> None:
        self.assertTrue(is_ip("fd00::1"))
        self.assertFalse(is_ip("xen-1"))
        self.assertFalse(is_ip("fe80::1%eth0"))

    def test_each_address_has_one_spelling(self) -> None:
        self.assertEqual(canonical("FD00:0:0::1"), canonical("fd00::1"))
        self.assertEqual(canonical("Xen-1.example.ORG"), "xen-1.example.org")

    def test_only_ipv6_stands_in_brackets(self) -> None:
        self.assertEqual([bracketed(each) for each in ("fd00::1", "10.0.0.1", "xen-1")], ["[fd00::1]", "10.0.0.1", "xen-1"])

"""`xvpd.grants.network`: networks and addresses, held to the standard library's own arithmetic."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.grants.network import address_bits, network, network_bits

ADDRESSES = st.one_of(st.ip_addresses(), st.ip_addresses(network="10.0.0.0/14"), st.ip_addresses(network="2001:db8::/120"))


def contains(spelt: str, address: str) -> bool:
    """Whether an address is in a network."""
    return address_bits(address).startswith(network_bits(spelt))


class NetworkTests(SynchronousTestCase):
    @given(ADDRESSES, ADDRESSES, st.integers(0, 128))
    def test_an_address_is_in_a_network_when_the_standard_library_says_so(
        self, base: ipaddress.IPv4Address | ipaddress.IPv6Address, address: ipaddress.IPv4Address, length: int
    ) -> None:
        given_network = ipaddress.ip_network((base, min(length, base.max_prefixlen)), strict=False)
        if isinstance(base, ipaddress.IPv6Address) and (base.ipv4_mapped or getattr(address, "ipv4_mapped", None)):
            return
        inside = address in given_network
        self.assertEqual(contains(network(str(given_network)), str(address)), inside)

    @given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 32))
    def test_ipv4_in_ipv6_is_ipv4(self, base: ipaddress.IPv4Address, address: ipaddress.IPv4Address, length: int) -> None:
        plain = ipaddress.ip_network((base, length), strict=False)
        mapped = f"::ffff:{plain.network_address}/{96 + length}"
        self.assertEqual(network(mapped), str(plain))
        self.assertEqual(contains(str(plain), f"::ffff:{address}"), address in plain)

    def test_every_network_has_one_spelling(self) -> None:
        for text, spelt in (
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:DB8:0::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ):
            self.assertEqual(network(text), spelt)

    def test_what_is_no_network_is_refused(self) -> None:
        bad = ("", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/255.0.0.0", "10.0.0.0/٨")
        worse = (
            "10.0.0/8",
            "010.0.0.0/8",
            "fe80::1%eth0",
            "fe80::%1/64",
            "host",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10.0.0.0/8\n",
        )
        for text in (*bad, *worse, "1" * 5000):
            with self.assertRaisesRegex(ValueError, "must be a network such as 192.0.2.0/24, or an address"):
                network(text)

    def test_bits_behind_the_network_are_refused_with_what_would_do(self) -> None:
        with self.assertRaisesRegex(ValueError, "first 8; 10.0.0.0/8 would do"):
            network("10.1.2.3/8")

    def test_no_network_is_any(self) -> None:
        for address in ("192.0.2.7", "2001:db8::1", "unix", ""):
            self.assertTrue(contains("", address))

    def test_what_is_no_address_is_in_no_network(self) -> None:
        for address in ("unix", "", "host", "192.0.2.256"):
            for spelt in ("0.0.0.0/0", "::/0"):
                self.assertFalse(contains(spelt, address))

    def test_a_zone_is_no_part_of_an_address(self) -> None:
        self.assertTrue(contains("fe80::/10", "fe80::1%eth0"))

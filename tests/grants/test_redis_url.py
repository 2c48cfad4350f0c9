"""`xvpd.grants.redis_url`: the address of a Redis."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.grants.redis_url import RedisSettings, parse_redis_url


class AddressTests(SynchronousTestCase):
    """What an operator writes, and what it means."""

    def test_reads_every_form(self) -> None:
        for url, expected in {
            "redis://cache": RedisSettings((("cache", 6379),)),
            "redis://cache/": RedisSettings((("cache", 6379),)),
            "redis://10.0.0.1:6380/3": RedisSettings((("10.0.0.1", 6380),), database=3),
            "redis://[2001:db8::1]:6380": RedisSettings((("2001:db8::1", 6380),)),
            "rediss://xvpd@cache.example.org:6380/15": RedisSettings(
                (("cache.example.org", 6380),), database=15, username="xvpd", tls=True
            ),
            "redis+sentinel://a,b:1,[::1]:2/main": RedisSettings((("a", 26379), ("b", 1), ("::1", 2)), master="main"),
            "rediss+sentinel://u@a:1/main/4": RedisSettings((("a", 1),), master="main", database=4, username="u", tls=True),
        }.items():
            self.assertEqual(parse_redis_url(url), expected, url)

    def test_takes_password_and_authorities_from_elsewhere(self) -> None:
        settings = parse_redis_url("rediss://cache", "a-secret", "/etc/xvpd/ca.pem")
        self.assertEqual((settings.password, settings.ca_file), ("a-secret", "/etc/xvpd/ca.pem"))
        self.assertNotIn("a-secret", repr(settings))

    def test_says_in_one_line_what_is_wrong_and_quotes_nothing(self) -> None:
        for url, complaint in {
            "": "form",
            "cache:6379": "form",
            "http://cache": "form",
            "redis://": "form",
            "redis://cache?db=canary": "form",
            "redis://user:canary@cache": "password file",
            "redis://:canary@cache": "password file",
            "redis://can ary": "a host is",
            "redis://2001:db8::1": "a host is",
            "redis://cache:0": "65535",
            "redis://cache:65536": "65535",
            "redis://cache/canary": "number",
            "redis://cache/1/2": "number",
            "redis://a,b": "Sentinel",
            "redis+sentinel://a": "/master",
            "redis+sentinel://a/": "/master",
            "redis+sentinel://a/main/canary": "number",
            "redis+sentinel://a,,b/main": "a host is",
        }.items():
            with self.assertRaises(ValueError) as raised:
                parse_redis_url(url)
            self.assertIn(complaint, str(raised.exception), url)
            self.assertNotIn("canary", str(raised.exception))
            self.assertNotIn("\n", str(raised.exception))

    @given(st.text(), st.sampled_from(["", "redis://", "rediss://", "redis+sentinel://", "redis://h:"]))
    def test_anything_else_is_a_value_error(self, text: str, prefix: str) -> None:
        try:
            settings = parse_redis_url(prefix + text)
        except ValueError:
            return
        self.assertTrue(settings.servers)

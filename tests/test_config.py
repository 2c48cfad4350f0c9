"""xvpd.toml: what is understood, what is refused, and in which words."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from xvpd.config import Config, ConfigError, load

CONSOLE = """
[console]
base_url = "https://console.example.org:6081"
certificate = "/tls/cert.pem"
private_key = "/tls/key.pem"
"""
POOL = """
[[pool]]
name = "lab"
hosts = ["10.0.0.11", "fd00::12", "xen3.example.org"]
username = "xvpd"
password_file = "/etc/xvpd/lab.password"
"""
PINNED = POOL + f'fingerprint_sha256 = ["{"AB:" * 31}AB", "{"0f" * 32}"]\n'


def faults_of(text: str, **more: Any) -> list[str]:
    """The lines that `load` has to say about ``text``."""
    try:
        load(text, "xvpd.toml", **more)
    except ConfigError as error:
        return [line.removeprefix("xvpd.toml: ") for line in str(error).splitlines()]
    return []


def console(line: str) -> str:
    """A sound configuration with one line more in its console section."""
    return CONSOLE + line + "\n"


def pool(line: str) -> str:
    """A sound configuration with one line more in its pool."""
    return CONSOLE + PINNED + line + "\n"


class Understood(SynchronousTestCase):
    def test_what_is_not_said_has_the_documented_defaults(self) -> None:
        config = load(CONSOLE, "xvpd.toml")
        self.assertEqual(config.console.listen, ("tcp:6081",))
        self.assertIs(config.console.insecure_plain, False)
        self.assertEqual(config.console.handshake_timeout, 10)
        self.assertEqual((config.console.max_duration, config.console.drain_timeout), (0, 300))
        self.assertEqual(config.console.max_sessions, 10000)
        self.assertEqual(config.console.max_sessions_per_vm, 8)
        self.assertEqual(config.console.max_sessions_per_host, 200)
        self.assertEqual(config.console.max_sessions_per_user, 0)
        self.assertEqual(config.console.max_pending_per_client, 64)
        self.assertEqual(config.console.relay, "auto")
        self.assertEqual((config.grants.store, config.grants.ttl), ("memory", 600))
        self.assertEqual((config.grants.uses, config.grants.resume), (0, 300))
        self.assertEqual(config.grants.when_store_is_down, "keep")
        self.assertEqual(config.api.listen, ("tcp:6082:interface=127.0.0.1",))
        self.assertEqual((config.api.keys_file, config.api.issue_timeout), ("/etc/xvpd/api-keys", 30))
        self.assertEqual((config.api.certificate, config.api.private_key), ("", ""))
        self.assertEqual(config.pools, ())
        self.assertEqual(config.state.dir, "/var/lib/xvpd")

    def test_a_pool_with_pins(self) -> None:
        (lab,) = load(CONSOLE + PINNED, "xvpd.toml").pools
        self.assertEqual(lab.hosts, ("10.0.0.11", "fd00::12", "xen3.example.org"))
        self.assertEqual((lab.port, lab.ca_file, lab.insecure_plain), (443, "", False))

    def test_fingerprints_are_read_with_colons_or_without_in_either_case(self) -> None:
        (lab,) = load(CONSOLE + PINNED, "xvpd.toml").pools
        self.assertEqual(lab.fingerprint_sha256, ("ab" * 32, "0f" * 32))

    def test_a_base_url_always_has_a_port_and_no_slash_at_its_end(self) -> None:
        for given, kept in {
            "https://c.example.org": "https://c.example.org:443",
            "https://c.example.org/": "https://c.example.org:443",
            "https://C.example.org:6081": "https://c.example.org:6081",
            "https://[2001:db8::1]": "https://[2001:db8::1]:443",
            "HTTPS://10.0.0.1": "https://10.0.0.1:443",
        }.items():
            text = CONSOLE.replace("https://console.example.org:6081", given)
            self.assertEqual(load(text, "xvpd.toml").console.base_url, kept)

    def test_clear_text_to_clients_by_the_operators_own_word(self) -> None:
        config = load('[console]\nbase_url = "http://localhost"\ninsecure_plain = true', "xvpd.toml")
        self.assertEqual(config.console.base_url, "http://localhost:80")

    def test_a_unix_socket_needs_no_certificate(self) -> None:
        for endpoint in ("unix:/run/xvpd.sock", "systemd:domain=UNIX:name=console"):
            text = f'[console]\nbase_url = "https://c.example.org"\nlisten = ["{endpoint}"]\n[api]\nlisten = ["{endpoint}"]'
            self.assertEqual(load(text, "xvpd.toml").console.listen, (endpoint,))

    def test_the_api_on_loopback_needs_no_certificate(self) -> None:
        for endpoint in ("tcp:1:interface=127.0.0.1", "tcp:1:interface=localhost", r"tcp6:1:interface=\\:\\:1"):
            self.assertEqual(faults_of(f'{CONSOLE}[api]\nlisten = ["{endpoint}"]'), [])

    def test_a_variable_in_a_string_is_replaced(self) -> None:
        text = CONSOLE + PINNED.replace("/etc/xvpd", "${CREDENTIALS}")
        (lab,) = load(text, "xvpd.toml", environ={"CREDENTIALS": "/run/credentials"}).pools
        self.assertEqual(lab.password_file, "/run/credentials/lab.password")

    def test_a_replaced_variable_is_not_searched_for_more(self) -> None:
        text = CONSOLE + '[state]\ndir = "${A}"'
        self.assertEqual(load(text, "xvpd.toml", environ={"A": "${B}", "B": "x"}).state.dir, "${B}")

    def test_overrides_take_the_place_of_the_files_values(self) -> None:
        over: dict[str, dict[str, Any]] = {"console": {"listen": ["tcp:1"]}, "state": {"dir": "/tmp/state"}}
        config = load(CONSOLE, "xvpd.toml", overrides=over)
        self.assertEqual(config.console.listen, ("tcp:1",))
        self.assertEqual(config.console.certificate, "/tls/cert.pem")
        self.assertEqual(config.state.dir, "/tmp/state")

    def test_a_configuration_does_not_change(self) -> None:
        config = load(CONSOLE, "xvpd.toml")
        with self.assertRaises(ValueError):
            config.console.relay = "copy"
        self.assertIsInstance(config, Config)


class Refused(SynchronousTestCase):
    def test_a_fault_names_file_and_key_and_reason(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            load(console("handshake_timeout = 0"), "/etc/xvpd/xvpd.toml")
        self.assertEqual(str(caught.exception), "/etc/xvpd/xvpd.toml: [console] handshake_timeout: must be greater than 0")

    def test_one_line_for_each_fault(self) -> None:
        text = console("relay = 'fast'\nmax_sessions = -1") + "[grants]\nttl = '600'\n" + PINNED + "port = 65536"
        self.assertEqual(
            faults_of(text),
            [
                "[console] max_sessions: must be greater than or equal to 0",
                "[console] relay: must be 'auto' or 'copy'",
                "[grants] ttl: must be a number",
                "[[pool]] entry 1, port: must be less than or equal to 65535",
            ],
        )

    def test_an_unknown_key_or_section(self) -> None:
        for text, fault in {
            console("handshake_timout = 1"): "[console] handshake_timout: no such key; did you mean handshake_timeout?",
            console("colour = 'red'"): "[console] colour: no such key",
            CONSOLE + "[gants]": "[gants]: no such key; did you mean grants?",
            CONSOLE + "[[pools]]": "[pools]: no such key; did you mean pool?",
            CONSOLE + '["a\\nb"]': "[a\\nb]: no such key",
            pool("prot = 1"): "[[pool]] entry 1, prot: no such key; did you mean port?",
        }.items():
            self.assertEqual(faults_of(text), [fault])

    def test_what_is_planned_but_not_there_yet(self) -> None:
        for key in ("idle_timeout = 5", "trusted_proxies = []", "allowed_origins = []"):
            (fault,) = faults_of(console(key))
            self.assertIn("no such key", fault)
        for line in ('relay = "engine"', 'relay = "Copy"'):
            self.assertEqual(faults_of(console(line)), ["[console] relay: must be 'auto' or 'copy'"])

    def test_a_balancers_word_for_who_a_client_is(self) -> None:
        (fault,) = faults_of(console('listen = ["tcp:1", "haproxy:tcp:2"]'))
        self.assertTrue(fault.startswith("[console] listen: must not be haproxy: yet"), fault)

    def test_tokens_for_ever(self) -> None:
        for ttl in ("1e12", "inf"):
            (fault,) = faults_of(CONSOLE + f"[grants]\nttl = {ttl}")
            self.assertTrue(fault.startswith("[grants] ttl: must be "), fault)

    def test_a_store_that_cannot_be(self) -> None:
        self.assertEqual(
            faults_of(CONSOLE + '[grants]\nstore = "mongodb://m"'),
            ['[grants] store: must be "memory", or the address of a Redis such as redis://host:6379/0'],
        )
        self.assertEqual(
            faults_of(CONSOLE + '[grants]\nstore_password_file = "p"'),
            ["[grants] store_password_file: means nothing while store is memory"],
        )
        self.assertEqual(
            faults_of(CONSOLE + '[grants]\nstore = "redis://r"\nstore_ca_file = "ca"'),
            ["[grants] store_ca_file: means nothing without TLS: rediss://"],
        )

    def test_the_address_of_a_redis(self) -> None:
        for url in ("redis://r", "rediss://u@r:1/2", "redis+sentinel://a,b/m", "rediss+sentinel://a/m/1"):
            self.assertEqual(faults_of(CONSOLE + f'[grants]\nstore = "{url}"'), [])

    def test_a_value_of_the_wrong_type(self) -> None:
        for line, fault in {
            "max_sessions = true": "max_sessions: must be a whole number",
            "max_sessions = 1.5": "max_sessions: must be a whole number",
            "max_sessions = '1'": "max_sessions: must be a whole number",
            "insecure_plain = 1": "insecure_plain: must be true or false",
            "drain_timeout = inf": "drain_timeout: must be a finite number",
            "listen = 'tcp:1'": "listen: must be a list",
            "listen = []": "listen: must not be empty",
            "listen = ['tcp:1', 2]": "listen, entry 2: must be a string",
            "listen = ['']": "listen, entry 1: must not be empty",
        }.items():
            self.assertEqual(faults_of(console(line)), [f"[console] {fault}"])

    def test_a_section_that_is_none(self) -> None:
        self.assertEqual(
            faults_of("console = 1\npool = 2"),
            ["[console]: must be a table", "[[pool]]: must be tables, each headed [[pool]]"],
        )
        self.assertEqual(faults_of(CONSOLE + "[pool]\nname = 'lab'"), ["[[pool]]: must be tables, each headed [[pool]]"])

    def test_an_override_of_what_is_no_table(self) -> None:
        self.assertEqual(
            faults_of(CONSOLE + PINNED, overrides={"pool": {"port": 1}}),
            ["[[pool]]: is no table that a single value could be put into"],
        )

    def test_a_file_that_is_not_toml(self) -> None:
        (fault,) = faults_of("[console\n")
        self.assertIn("line 1", fault)

    def test_an_empty_file_lacks_the_base_url(self) -> None:
        self.assertEqual(faults_of(""), ["[console] base_url: is missing"])

    def test_a_base_url_that_is_more_or_less_than_scheme_host_and_port(self) -> None:
        a_url = "must be a URL such as https://console.example.org:6081"
        only = "must be only scheme, host and port; xvpd adds the path"
        for base_url, reason in {
            "": a_url,
            "console.example.org": a_url,
            "ftp://c.example.org": a_url,
            "https://": a_url,
            "https://c:port": a_url,
            "https://c:65536": a_url,
            "https://c:0": a_url,
            "https://c\\n": "must have no control characters",
            "https://[::1": a_url,
            "https://c/console": only,
            "https://c?a=b": only,
            "https://c?": only,
            "https://c#f": only,
            "https://user:secret@c": only,
            "https://c d": only,
        }.items():
            text = CONSOLE.replace("https://console.example.org:6081", base_url)
            self.assertEqual(faults_of(text), [f"[console] base_url: {reason}"])

    def test_tls_that_is_half_configured(self) -> None:
        for gone, fault in {
            'private_key = "/tls/key.pem"': "[console] private_key: is missing; certificate needs it",
            'certificate = "/tls/cert.pem"': "[console] certificate: is missing; private_key needs it",
        }.items():
            self.assertEqual(faults_of(CONSOLE.replace(gone, ""))[0], fault)

    def test_no_certificate_without_the_word_for_clear_text(self) -> None:
        for listen in ("['tcp:6081']", "['unix:/x', 'tcp:1']", "['systemd:domain=INET:name=c']"):
            (fault,) = faults_of(f"[console]\nbase_url = 'https://c'\nlisten = {listen}")
            self.assertIn("[console] certificate: is missing; without one, clients are spoken to in clear text", fault)

    def test_a_certificate_and_clear_text_at_once(self) -> None:
        self.assertEqual(
            faults_of(console("insecure_plain = true")),
            ["[console] insecure_plain: must be false when there is a certificate"],
        )
        self.assertEqual(
            faults_of(CONSOLE.replace("https:", "http:")),
            ["[console] base_url: must begin with https:// when there is a certificate"],
        )

    def test_an_endpoint_with_tls_of_its_own(self) -> None:
        (fault,) = faults_of(console("listen = ['ssl:443']"))
        self.assertIn("TLS comes from certificate and private_key", fault)

    def test_the_api_in_clear_text_beyond_this_machine(self) -> None:
        for endpoint in (
            "tcp:6082",
            "tcp:6082:interface=10.0.0.1",
            "tcp:6082:interface=api",
            "tcp6:6082",
            "systemd:domain=INET",
        ):
            self.assertEqual(
                faults_of(f"{CONSOLE}[api]\nlisten = ['{endpoint}']"),
                ["[api] certificate: is missing; without one, the API may listen on loopback and unix: only"],
            )

    def test_a_pool_needs_exactly_one_way_of_trust(self) -> None:
        self.assertEqual(
            faults_of(CONSOLE + POOL),
            ["[[pool]] entry 1, fingerprint_sha256: is missing; a pool needs this or ca_file (or insecure_plain = true)"],
        )
        both = ["[[pool]] entry 1, fingerprint_sha256: only one of ca_file, fingerprint_sha256 and insecure_plain can be used"]
        for more in ("ca_file = '/ca.pem'", "insecure_plain = true"):
            self.assertEqual([fault.removesuffix(" for a pool") for fault in faults_of(pool(more))], both)

    def test_fingerprints_that_are_none(self) -> None:
        for wrong in ("", "ab" * 31, "ab" * 33, "xy" * 32, "sha256:" + "ab" * 32, "ab" * 32 + "\\n"):
            (fault,) = faults_of(CONSOLE + POOL + f'fingerprint_sha256 = ["{wrong}"]')
            self.assertIn("fingerprint_sha256: must be SHA-256 fingerprints", fault)

    def test_hosts_that_could_not_be_dialled(self) -> None:
        for wrong in ("10.0.0.1:443", "https://xen", "a b", "-a", "a/b", "[::1]", "fe80::1%a b", "x\\r\\ny"):
            (fault,) = faults_of(CONSOLE + PINNED.replace("10.0.0.11", wrong))
            self.assertIn("[[pool]] entry 1, hosts", fault)

    def test_two_pools_of_one_name(self) -> None:
        self.assertEqual(faults_of(CONSOLE + PINNED + PINNED), ["[[pool]]: more than one is named lab"])

    def test_a_variable_that_does_not_exist(self) -> None:
        text = CONSOLE + PINNED.replace("10.0.0.11", "${HOST}") + "[state]\ndir = '${DIR}'"
        self.assertEqual(
            faults_of(text, environ={})[:2],
            [
                "[[pool]] entry 1, hosts, entry 1: there is no environment variable HOST",
                "[state] dir: there is no environment variable DIR",
            ],
        )

        self.assertEqual(
            faults_of(CONSOLE + "[state]\ndir = '${}'", environ={}), ["[state] dir: there is no environment variable "]
        )

    def test_a_pools_name_that_could_not_be_a_label(self) -> None:
        for wrong in ("", "a b", "a/b", "a" * 65, "a\\n"):
            (fault,) = faults_of(CONSOLE + PINNED.replace('"lab"', f'"{wrong}"'))
            self.assertEqual(fault, "[[pool]] entry 1, name: must be 1 to 64 letters, digits, dots, dashes or underscores")

    def test_control_characters(self) -> None:
        for line in ('certificate = "/a\\nb"', 'listen = ["tcp:1\\u0000"]'):
            text = console(line) if "listen" in line else CONSOLE.replace('certificate = "/tls/cert.pem"', line)
            self.assertIn("must have no control characters", faults_of(text)[0])

    def test_no_value_is_ever_quoted(self) -> None:
        canary = "cAnArY"
        text = console(f"relay = '{canary}'\nhandshake_timeout = '{canary}'\nlisten = '{canary}'")
        text += f"[grants]\nstore = '{canary}'\n" + PINNED.replace("10.0.0.11", f"{canary} {canary}")
        faults = faults_of(text)
        self.assertEqual(len(faults), 5)
        self.assertNotIn(canary, "\n".join(faults))

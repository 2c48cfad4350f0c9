"""Bodies: strict JSON, or a problem that says what is wrong."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from twisted.trial.unittest import SynchronousTestCase

from xvpd.api.body import read_body
from xvpd.api.reply import Problem
from xvpd.api.route import Call
from xvpd.reason import Reason


class Thing(BaseModel):
    """A body."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    size: int = Field(default=1, ge=0)
    part: "Part | None" = None


class Part(BaseModel):
    """A part of a body."""

    number: float


def call(body: bytes, content_type: str = "application/json") -> Call:
    """A call with this body."""
    return Call("request", None, {}, "", content_type, body)


class Bodies(SynchronousTestCase):
    def problem(self, body: bytes) -> str:
        """What is wrong with a JSON body."""
        problem = read_body(call(body), Thing)
        assert isinstance(problem, Problem), problem
        self.assertEqual(problem.reason, Reason.BAD_REQUEST)
        return problem.detail

    def test_a_good_body(self) -> None:
        self.assertEqual(read_body(call(b'{"name": "\xc3\xa9", "size": 3}'), Thing), Thing(name="é", size=3))

    def test_json_is_declared_as_such(self) -> None:
        for good in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'):
            self.assertEqual(read_body(call(b'{"name":""}', good), Thing), Thing(name=""))
        for bad in (
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin-1",
            "application/jsonp",
            "application/problem+json",
        ):
            problem = read_body(call(b'{"name":""}', bad), Thing)
            assert isinstance(problem, Problem)
            self.assertEqual(problem.reason, Reason.NOT_JSON)

    def test_what_is_not_json(self) -> None:
        for body in (
            b"",
            b"{",
            b"{'name': 1}",
            b'{"name": "\xff"}',
            b'\xef\xbb\xbf{"name": ""}',
            b'{"name": ""} x',
            '{"name": ""}'.encode("utf-16"),
            b'{"size": ' + b"9" * 5000 + b"}",
            b"[" * 60000,
        ):
            self.assertEqual(self.problem(body), "The body is not JSON.")

    def test_what_different_readers_read_differently(self) -> None:
        self.assertEqual(self.problem(b'{"name": "a", "name": "b"}'), "The body has an object with the same key twice.")
        self.assertEqual(
            self.problem(b'{"name": "a", "part": {"number": 1, "number": 1}}'),
            "The body has an object with the same key twice.",
        )
        for number in (b"NaN", b"Infinity", b"-Infinity"):
            self.assertEqual(self.problem(b'{"name": ' + number + b"}"), "The body has a number that is not finite.")

    def test_json_that_is_no_object(self) -> None:
        for body in (b"[]", b'"name"', b"1", b"null"):
            self.assertEqual(self.problem(body), "The body must be a JSON object.")

    def test_a_fault_names_the_key_and_not_the_value(self) -> None:
        for body, detail in {
            b"{}": "name: is missing",
            b'{"name": "", "colour": "canary"}': "colour: no such key",
            b'{"name": "", "a\\u000ab": 1}': "a\\nb: no such key",
            b'{"name": 1}': "name: must be a string",
            b'{"name": "", "size": "canary"}': "size: must be a whole number",
            b'{"name": "", "size": true}': "size: must be a whole number",
            b'{"name": "", "size": -1}': "size: must be greater than or equal to 0",
            b'{"name": "", "part": {}}': "part.number: is missing",
            b'{"size": -1}': "name: is missing; size: must be greater than or equal to 0",
        }.items():
            self.assertEqual(self.problem(body), detail)

    @given(st.binary(max_size=200))
    def test_any_bytes_get_an_answer(self, body: bytes) -> None:
        self.assertIsInstance(read_body(call(body), Thing), Problem | Thing)

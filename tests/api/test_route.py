"""The table of routes: what is found, and what is said when nothing is."""

from twisted.trial.unittest import SynchronousTestCase

from xvpd.api.auth import Caller, Role
from xvpd.api.reply import Problem, Reply
from xvpd.api.route import Answer, Call, Match, Route, Table
from xvpd.reason import Reason


async def nothing(_: Call) -> Answer:
    """A handler."""
    return Reply(200, b"", "text/plain")


GET_ALL = Route("GET", "/v1/things", nothing)
POST = Route("POST", "/v1/things", nothing)
GET_ONE = Route("GET", "/v1/things/{id}", nothing, frozenset({Role.ISSUER}))
GET_PART = Route("GET", "/v1/things/{id}/parts/{part}", nothing)
DOTTED = Route("GET", "/openapi.json", nothing)


class TableTests(SynchronousTestCase):
    table = Table([GET_ALL, POST, GET_ONE, GET_PART, DOTTED])

    def found(self, method: str, path: str) -> Match:
        """The match, which there must be."""
        match = self.table.find(method, path)
        assert isinstance(match, Match), match
        return match

    def test_method_and_path_decide(self) -> None:
        self.assertIs(self.found("GET", "/v1/things").route, GET_ALL)
        self.assertIs(self.found("POST", "/v1/things").route, POST)

    def test_head_goes_where_get_goes(self) -> None:
        self.assertIs(self.found("HEAD", "/v1/things").route, GET_ALL)

    def test_variables_are_decoded_segments(self) -> None:
        self.assertEqual(self.found("GET", "/v1/things/a%20b%2F%C3%A9").variables, {"id": "a b/é"})
        self.assertEqual(self.found("GET", "/v1/things/1/parts/2").variables, {"id": "1", "part": "2"})

    def test_what_is_not_there(self) -> None:
        for path in ("/", "/v1/thing", "/v1/things/", "/v1/things/1/", "/v1//things", "/V1/things", "/openapixjson", "*"):
            self.assertEqual(self.table.find("GET", path), Problem(Reason.NOT_FOUND, Reason.NOT_FOUND.sentence))

    def test_a_segment_that_is_not_text_is_not_there(self) -> None:
        for segment in ("%ff", "%", "a%2", "%zz", "%2gb", "100%", "%%41", "%c3%28", "%ed%a0%80"):
            found = self.table.find("GET", f"/v1/things/{segment}")
            self.assertEqual(found, Problem(Reason.NOT_FOUND, Reason.NOT_FOUND.sentence), segment)

    def test_a_segment_is_decoded_once(self) -> None:
        self.assertEqual(self.found("GET", "/v1/things/%2541+b").variables, {"id": "%41+b"})

    def test_a_method_that_is_not_there_names_those_that_are(self) -> None:
        problem = self.table.find("DELETE", "/v1/things")
        assert isinstance(problem, Problem)
        self.assertEqual(problem.reason, Reason.METHOD_NOT_ALLOWED)
        self.assertEqual(problem.headers, (("Allow", "GET, HEAD, POST"),))

    def test_methods_are_case_sensitive(self) -> None:
        self.assertIsInstance(self.table.find("get", "/v1/things"), Problem)


class RouteTests(SynchronousTestCase):
    def test_an_operator_may_everything_and_others_what_the_route_says(self) -> None:
        for role, may in {Role.OPERATOR: True, Role.ISSUER: True, Role.METRICS: False}.items():
            self.assertIs(GET_ONE.allows(Caller("x", role)), may)
        for role, may in {Role.OPERATOR: True, Role.ISSUER: False, Role.METRICS: False}.items():
            self.assertIs(GET_ALL.allows(Caller("x", role)), may)

"""Queries: what is understood, and what is said of the rest."""

from twisted.trial.unittest import SynchronousTestCase

from xvpd.api.model import Strict
from xvpd.api.query import NoQuery, read_query
from xvpd.api.reply import Problem
from xvpd.api.route import Call
from xvpd.reason import Reason


class Wanted(Strict):
    name: str = ""
    other: str | None = None


def call(query: str) -> Call:
    """A request with this query."""
    return Call("request", None, {}, query, "", b"")


class Queries(SynchronousTestCase):
    def test_pairs_become_a_model(self) -> None:
        for query, wanted in (
            ("", Wanted()),
            ("name=ann", Wanted(name="ann")),
            ("other=&name=a", Wanted(name="a", other="")),
            ("name=a%20b+c%2B%26%3d%C3%A9", Wanted(name="a b c+&=é")),
            ("n%61me=a=b", Wanted(name="a=b")),
        ):
            self.assertEqual(read_query(call(query), Wanted), wanted)

    def test_what_is_no_pairs_is_refused(self) -> None:
        for query in ("name", "=ann", "name=ann&", "&", "name=%", "name=%f", "name=%ff", "na%me=x", "name=a&&other=b"):
            problem = read_query(call(query), Wanted)
            self.assertEqual(
                problem, Problem(Reason.BAD_REQUEST, "The query must be name=value pairs, percent-encoded."), query
            )

    def test_a_name_is_there_once(self) -> None:
        self.assertEqual(read_query(call("name=a&name=a"), Wanted), Problem(Reason.BAD_REQUEST, "name: is there twice"))

    def test_an_unknown_name_is_refused_and_cannot_make_a_mess(self) -> None:
        for model in (Wanted, NoQuery):
            problem = read_query(call("sh%0Aell=x"), model)
            self.assertEqual(problem, Problem(Reason.BAD_REQUEST, "sh\\nell: no such key"))

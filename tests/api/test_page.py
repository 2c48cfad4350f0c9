"""Pages: whatever comes and goes meanwhile, what stays is told once."""

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from xvpd.api.body import as_model
from xvpd.api.page import MOST, Page, Place, page_of
from xvpd.api.reply import Problem


def place(item: Place) -> Place:
    """Items here are their places."""
    return item


def page(**query: Any) -> Page:
    """The page that a sound query asks for."""
    read = as_model(Page, query)
    assert isinstance(read, Page), read
    return read


def page_after(cursor: str | None, limit: int) -> Page:
    """The page behind a cursor, or the first."""
    return page(limit=str(limit), **({"after": cursor} if cursor is not None else {}))


PLACES = st.lists(st.tuples(st.floats(0, 2e9), st.text("ab-_9", min_size=1, max_size=3)), unique=True)


class Pages(SynchronousTestCase):
    @given(PLACES, st.integers(1, 5))
    def test_all_pages_together_are_the_whole_list_in_order(self, items: list[Place], limit: int) -> None:
        told: list[Place] = []
        cursor: str | None = None
        while True:
            some, cursor = page_of(items, place, page_after(cursor, limit))
            self.assertEqual(len(some), limit if cursor else len(items) - len(told))
            told += some
            if cursor is None:
                break
        self.assertEqual(told, sorted(items))

    def test_what_vanishes_or_appears_between_two_pages_shifts_nothing(self) -> None:
        items = [(float(n), "x") for n in range(10)]
        some, cursor = page_of(items, place, page_after(None, 4))
        self.assertEqual(some, items[:4])
        items = [(0.5, "new"), *items[5:8], (7.5, "new"), *items[8:]]
        some, cursor = page_of(items, place, page_after(cursor, 4))
        self.assertEqual(some, [(5.0, "x"), (6.0, "x"), (7.0, "x"), (7.5, "new")])

    def test_of_one_moment_the_id_decides(self) -> None:
        some, cursor = page_of([(1.0, "b"), (1.0, "c"), (1.0, "a")], place, page_after(None, 2))
        self.assertEqual(some, [(1.0, "a"), (1.0, "b")])
        self.assertEqual(page_of([(1.0, "b"), (1.0, "c"), (1.0, "a")], place, page_after(cursor, 2)), ([(1.0, "c")], None))

    def test_a_page_has_100_items_unless_the_query_says_otherwise(self) -> None:
        items = [(float(n), "x") for n in range(MOST + 1)]
        self.assertEqual(len(page_of(items, place, page())[0]), 100)
        self.assertEqual(len(page_of(items, place, page_after(None, MOST))[0]), MOST)

    def test_bad_limits_are_refused(self) -> None:
        for limit in ("0", "1001", "-1", "+1", "1.0", " 1", "", "ten", "1_0", "٣", "9" * 5000):
            problem = as_model(Page, {"limit": limit})
            assert isinstance(problem, Problem), limit
            self.assertEqual(problem.detail, "limit: must be a whole number from 1 to 1000")

    def test_cursors_that_were_never_given_are_refused(self) -> None:
        _, good = page_of([(1.0, "a"), (2.0, "b")], place, page_after(None, 1))
        assert good is not None
        self.assertEqual(page(after=good).after, good)
        made = [b"1.0", b"x a", b"nan a", b"inf a", b"1 a", b"1.0 ", b"1.0 a b", b"1.0 a\n", b"\xff a", b" "]
        bad = [base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in made]
        for cursor in ("", "!", good + "=", good[:-1], good + "A", "é", *bad):
            problem = as_model(Page, {"after": cursor})
            assert isinstance(problem, Problem), cursor
            self.assertEqual(problem.detail, "after: must be what another page had as next")
        self.assertIsInstance(as_model(Page, {"after": "A" * 100_000}), Problem)

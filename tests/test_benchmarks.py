"""The benchmarks measure what they say, and print it; how fast anything was is nobody's business here."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import issuing, revocation
from benchmarks.table import Table, percentile

_TREE: Final = Path(__file__).resolve().parents[1]
_SECONDS: Final = 300
_MEASURE: Final = re.compile(r"  (\S.*?) +min +median +max   median ratio \(min to max\)")
_CASE: Final = re.compile(r"    (\S.*?) +([0-9.]+) +([0-9.]+) +([0-9.]+)(?:   [0-9.]+ \([0-9.]+ to [0-9.]+\) x (.+))?")


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        command, cwd=_TREE, env={**os.environ, **environ}, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


class CommandTests(SynchronousTestCase):
    def test_prints_the_machine_and_each_measure_with_its_cases(self) -> None:
        done = _run("store", "--short")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        machine, versions, *lines = done.stdout.splitlines()
        self.assertRegex(machine, r"^[0-9]+ cores, .+, Linux ")
        self.assertRegex(versions, r"^xvpd [0-9.]+, Python 3\..*, Twisted .*, redis-server [0-9]")
        measures: dict[str, dict[str, tuple[list[float], str | None]]] = {}
        for line in lines:
            if match := _MEASURE.fullmatch(line):
                cases = measures[match[1]] = {}
            elif match := _CASE.fullmatch(line):
                cases[match[1]] = [float(number) for number in match.group(2, 3, 4)], match[5]
        round_trips = measures.pop("round trips to Redis, counted by a proxy")
        self.assertEqual(len(measures), 5, done.stdout)
        for cases in measures.values():
            self.assertEqual(
                {case: beside for case, (_, beside) in cases.items()},
                {
                    "redeem, memory": None,
                    "GET, unix socket": None,
                    "redeem, unix socket": "GET, unix socket",
                    "GET, TCP": None,
                    "redeem, TCP": "GET, TCP",
                },
            )
            for values, _ in cases.values():
                self.assertEqual(values, sorted(values))
                self.assertGreater(values[0], 0)
        self.assertEqual(round_trips["of a redeem, median"], ([1, 1, 1], None))

    def test_names_the_figures_there_are(self) -> None:
        done = _run("stores")
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        self.assertIn("there is no figure stores; there are store, ", done.stderr)

    def test_says_what_is_missing(self) -> None:
        nothing = Path(self.mktemp())
        nothing.mkdir()
        done = _run("store", "--short", PATH=str(nothing.resolve()))
        self.assertEqual(done.returncode, 1, done)
        self.assertEqual(done.stderr, "benchmarks: store: redis-server is missing: install the package redis-server\n")


class FigureTests(SynchronousTestCase):
    """The figures that start daemons, as small as can be."""

    def test_revocation(self) -> None:
        table = revocation.measure(revocation.Size(rounds=1, consoles=8, orders=2))
        floor = "nothing to end: answered"
        for quantile in ("p50", "p99", "max"):
            rows = table.measures[f"until it is over, {quantile}, ms"]
            self.assertEqual(
                {case: row.beside for case, row in rows.items()},
                {floor: "", "by user": floor, "by VM": floor, "by grant": floor},
            )
            self.assertTrue(all(row.values[0] > 0 for row in rows.values()), table.text())

    def test_issuing(self) -> None:
        table = issuing.measure(issuing.Size(rounds=1, alone=16, together=16))
        for how in ("1 at a time", "16 at a time"):
            cpu = table.measures[f"{how}: own CPU, ms a request"]
            self.assertEqual([(case, row.beside) for case, row in cpu.items()], [(_HEALTHZ, ""), (_ISSUE, _HEALTHZ)])
            self.assertTrue(all(row.values[0] > 0 for row in cpu.values()), table.text())
            self.assertEqual(table.measures[f"{how}: calls to the pool, a request"][_HEALTHZ].values, [0])


_HEALTHZ: Final = "GET /healthz"
_ISSUE: Final = "POST /v1/consoles"


class TableTests(SynchronousTestCase):
    def test_compares_within_rounds(self) -> None:
        table = Table("figure", "as follows")
        for peer, ours in ((10, 20), (100, 300), (1, 1)):
            table.add("seconds", "peer", peer)
            table.add("seconds", "ours", ours, beside="peer")
        self.assertEqual(table.ratios("seconds", "ours"), [2, 3, 1])
        self.assertEqual(
            table.text().splitlines(),
            [
                "figure",
                "  as follows",
                "",
                "  seconds         min    median       max   median ratio (min to max)",
                "    peer         1.00      10.0       100",
                "    ours         1.00      20.0       300   2.00 (1.00 to 3.00) x peer",
            ],
        )

    def test_compares_nothing_with_rounds_that_a_peer_missed(self) -> None:
        table = Table("figure")
        table.add("seconds", "peer", 1)
        for _ in range(2):
            table.add("seconds", "ours", 1, beside="peer")
        with self.assertRaises(ValueError):
            table.text()

    def test_percentiles_are_values_that_were_measured(self) -> None:
        values = [float(value) for value in range(100, 0, -1)]
        self.assertEqual([percentile(values, percent) for percent in (0, 50, 99, 100)], [1, 50, 99, 100])
        self.assertEqual(percentile([7.0], 99), 7)

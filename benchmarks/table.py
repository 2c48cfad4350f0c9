"""`Table`: what a figure has measured, round by round, and how it is printed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

_COLUMNS: Final = f"{'min':>10}{'median':>10}{'max':>10}"


@dataclass
class Row:
    """One case under one measure: a value a round."""

    beside: str
    """The case, of the same measure, that it is compared with; empty: none."""
    values: list[float] = field(default_factory=list)


class Table:
    """A figure's measures, in the order in which they were first added; each has its cases, in theirs."""

    def __init__(self, name: str, *about: str) -> None:
        """``about`` are the lines that say what was done."""
        self.measures: dict[str, dict[str, Row]] = {}
        self._name = name
        self._about = about

    def add(self, measure: str, case: str, value: float, beside: str = "") -> None:
        """The value of one round. A case that is ``beside`` another must be added as often."""
        self.measures.setdefault(measure, {}).setdefault(case, Row(beside)).values.append(value)

    def ratios(self, measure: str, case: str) -> list[float]:
        """The case's value by that of the case that it is beside, for each round."""
        rows = self.measures[measure]
        pairs = zip(rows[case].values, rows[rows[case].beside].values, strict=True)
        return [value / peer if peer else math.nan for value, peer in pairs]

    def text(self) -> str:
        """The table, for a terminal."""
        width = max(
            (len(name) for name in [*self.measures, *(case for rows in self.measures.values() for case in rows)]), default=0
        )
        lines = [self._name, *(f"  {line}" for line in self._about)]
        for measure, rows in self.measures.items():
            lines += ["", f"  {measure:<{width + 2}}{_COLUMNS}   median ratio (min to max)"]
            for case, row in rows.items():
                lines.append(f"    {case:<{width}}{_spread(row.values)}{self._compared(measure, case, row)}")
        return "\n".join(lines) + "\n"

    def _compared(self, measure: str, case: str, row: Row) -> str:
        if not row.beside:
            return ""
        ratios = self.ratios(measure, case)
        low, middle, high = (_number(value) for value in (min(ratios), median(ratios), max(ratios)))
        return f"   {middle} ({low} to {high}) x {row.beside}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _spread(values: list[float]) -> str:
    return "".join(f"{_number(value):>10}" for value in (min(values), median(values), max(values)))


def _number(value: float) -> str:
    """Three digits that count, and no exponent."""
    decimals = 2 - math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return f"{value:.{min(max(decimals, 0), 4)}f}"

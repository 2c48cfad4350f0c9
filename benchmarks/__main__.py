"""``python -m benchmarks [FIGURE …] [--short]``: measure, and print."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import issuing, machine, revocation, store
from benchmarks.child import BenchmarkError
from benchmarks.table import Table

FIGURES: Final[dict[str, Callable[[bool], Table]]] = {
    "store": store.run,
    "revocation": revocation.run,
    "issuing": issuing.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0; 1, with the reason, if a figure could not be measured; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="What xvpd costs.", allow_abbrev=False)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)}; default: all of them")
    parser.add_argument("--short", action="store_true", help="fewer rounds, with less in each: a minute for all")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.figures if name not in FIGURES]
    if unknown:
        parser.error(f"there is no figure {unknown[0]}; there are {', '.join(FIGURES)}")
    print("\n".join(machine.description()), flush=True)
    for name in options.figures or FIGURES:
        began = time.monotonic()
        try:
            table = FIGURES[name](options.short)
        except BenchmarkError as error:
            print(f"benchmarks: {name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        print(f"\n{table.text()}  ({time.monotonic() - began:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

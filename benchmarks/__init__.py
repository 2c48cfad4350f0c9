"""What xvpd costs, beside what the same work costs at least: ``python -m benchmarks [FIGURE …] [--short]``.

Every figure is a module with ``run(short) -> Table``. It measures in rounds, and in each round everything that is to be
compared, one after the other: machines differ, and one machine differs from minute to minute, so that only the ratios within a
round mean something elsewhere. Nothing is asserted about time.
"""

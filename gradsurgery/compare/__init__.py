"""Compare strategies on a task over several seeds: results as JSON lines, tables, a plot.

rich and matplotlib are imported where they are used: `pip install 'gradsurgery[compare]'`.
"""

from gradsurgery.compare.comparison import compare
from gradsurgery.compare.listener import Listener
from gradsurgery.compare.plan import (
    BASELINE,
    Plan,
    Run,
    parse_rates,
    parse_seeds,
    parse_strategy,
    split_list,
)
from gradsurgery.compare.plot import plot, plot_into
from gradsurgery.compare.report import remarks, table
from gradsurgery.compare.results import Results, read_results
from gradsurgery.compare.summary import Row, summarise

__all__ = [
    "BASELINE",
    "Listener",
    "Plan",
    "Results",
    "Row",
    "Run",
    "compare",
    "parse_rates",
    "parse_seeds",
    "parse_strategy",
    "plot",
    "plot_into",
    "read_results",
    "remarks",
    "split_list",
    "summarise",
    "table",
]

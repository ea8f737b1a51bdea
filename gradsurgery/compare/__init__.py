"""Compare strategies on a task over several seeds: results as JSON lines, tables, a plot.

rich and matplotlib are imported where they are used: `pip install 'gradsurgery[compare]'`.
"""

from gradsurgery.compare.comparison import compare
from gradsurgery.compare.conclusion import Conclusion, conclude
from gradsurgery.compare.curve_plot import plot_curves
from gradsurgery.compare.curves import Curve, curves
from gradsurgery.compare.listener import Listener
from gradsurgery.compare.parsing import parse_rates, parse_seeds, parse_strategy, split_list
from gradsurgery.compare.plan import BASELINE, Plan, Run
from gradsurgery.compare.plot import plot, plot_into
from gradsurgery.compare.report import remarks, table
from gradsurgery.compare.results import Results, read_results
from gradsurgery.compare.sentences import verdict_sentences
from gradsurgery.compare.summary import Row, summarise
from gradsurgery.compare.verdict_table import verdict_table

__all__ = [
    "BASELINE",
    "Conclusion",
    "Curve",
    "Listener",
    "Plan",
    "Results",
    "Row",
    "Run",
    "compare",
    "conclude",
    "curves",
    "parse_rates",
    "parse_seeds",
    "parse_strategy",
    "plot",
    "plot_curves",
    "plot_into",
    "read_results",
    "remarks",
    "split_list",
    "summarise",
    "table",
    "verdict_sentences",
    "verdict_table",
]

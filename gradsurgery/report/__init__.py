"""A report of a comparison: one page of HTML that needs nothing else, and the same as Markdown."""

from gradsurgery.report.markdown import as_markdown
from gradsurgery.report.page import Page, page_of
from gradsurgery.report.write import as_html, write_report

__all__ = ["Page", "as_html", "as_markdown", "page_of", "write_report"]

"""The report: one page, readable anywhere, made from a study's results.json."""

from whatwhere.study.report.page import write_report

__all__ = ["write_report"]

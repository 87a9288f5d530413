"""One self-contained HTML page about the labels of a data set: what is wrong, where, and whether cleaning helps."""

from sktda._lazy import lazy_names

__all__ = ["ReportInput", "write_report"]

__getattr__, __dir__ = lazy_names(__name__, {"ReportInput": "sktda.report.page", "write_report": "sktda.report.page"})

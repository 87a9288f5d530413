"""What is wrong with labels and rows before any statistics: spellings, contradictions, leaks, sentinels.

`inspect` looks for all of it; every kind has its own module, and its rule with the reason stands there.
"""

from sktda.findings.finding import Finding
from sktda.findings.inspection import check_classes, inspect, leak_positions, without_leaks
from sktda.findings.spellings import merge_spellings

__all__ = ["Finding", "check_classes", "inspect", "leak_positions", "merge_spellings", "without_leaks"]

"""``python -m tests.metrics.page`` prints a page with every metric, for ``promtool``."""

from __future__ import annotations

from tests.support.prometheus import sample_page

if __name__ == "__main__":
    print(sample_page(), end="")

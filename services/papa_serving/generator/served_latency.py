"""Measures the time from the acceptance of feedback to the first item of a revision that learnt from it."""

from __future__ import annotations

import time
from collections import OrderedDict

from papa_serving import metrics, tracing
from papa_serving.contracts.revisions import Revision
from papa_serving.generator.job import AdapterKey

REMEMBERED = 10_000
"""Revisions that are known to have been served. At about 150 bytes each they take 1.5 MB; a revision that was forgotten
and is served again would be measured a second time."""


class ServedLatency:
    """Measures each revision once, at its first generation in this process.

    Revisions whose events were accepted before the process began are left out: another process may have served them.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[AdapterKey, None] = OrderedDict()
        self._began = time.time()

    def observe(self, key: AdapterKey, record: Revision) -> None:
        """Records that an item of this revision is about to be delivered."""
        if record.accepted_at < self._began or key in self._seen:
            return
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        metrics.FEEDBACK_TO_SERVED_SECONDS.observe(max(0.0, time.time() - record.accepted_at))
        _trace(record)


def _trace(record: Revision) -> None:
    """Links the update and the present generation in both directions: by a span in the update's own trace, which is
    recorded whenever the update was, and by a link in the generation's."""
    if not record.traceparent:
        return
    generation = tracing.current()
    generation.link(record.traceparent)
    about: dict[str, tracing.Value] = {"papa.revision": record.name}
    links = [generation.traceparent]
    with tracing.span("first served", "consumer", parent=record.traceparent, links=links, attributes=about):
        pass

"""How long an opinion takes until its effect is seen."""

from __future__ import annotations

import time
from collections import OrderedDict

from papa_serving import metrics, tracing
from papa_serving.contracts.revisions import Revision
from papa_serving.generator.job import AdapterKey

REMEMBERED = 10_000
"""Revisions that are known to have been served; an older one might be counted again."""


class FirstServed:
    """Measures each revision once, at its first generation in this process.

    Revisions whose events were accepted before the process began are left out: another one may have served them.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[AdapterKey, None] = OrderedDict()
        self._began = time.time()

    def report(self, key: AdapterKey, record: Revision) -> None:
        """An item of this revision is about to be reported."""
        if record.accepted_at < self._began or key in self._seen:
            return
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        metrics.FEEDBACK_TO_SERVED_SECONDS.observe(max(0.0, time.time() - record.accepted_at))
        _trace(record)


def _trace(record: Revision) -> None:
    """Both ways between the update and the generation that runs here: one in the update's own trace, which is recorded
    whenever the update was, and one in the generation's."""
    if not record.traceparent:
        return
    generation = tracing.current()
    generation.link(record.traceparent)
    about: dict[str, tracing.Value] = {"papa.revision": record.revision}
    links = [generation.traceparent]
    with tracing.span("first served", "consumer", parent=record.traceparent, links=links, attributes=about):
        pass

"""Callers who generate and like, and remember everything that they were told."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from papa_serving.client import Client, FeedbackEvent, Retry
from papa_serving.contracts.errors import PapaError

from tests.cluster.nodes import until


class Shopper(threading.Thread):
    """One user. Generations are never tried again; likes are, under the same event id, until they are acknowledged."""

    def __init__(self, name: str, address: str, ending: threading.Event, pause: float) -> None:
        super().__init__(name=name, daemon=True)
        self.user = name
        self.generations = 0
        self.errors: list[PapaError] = []
        self.liked: list[str] = []
        self._address, self._ending, self._pause = address, ending, pause

    def run(self) -> None:
        with Client(self._address, retry=Retry(attempts=1)) as once, Client(self._address) as insistent:
            while not self._ending.is_set():
                try:
                    generation = once.generate(self.user, 1)
                except PapaError as error:
                    self.errors.append(error)
                    self._ending.wait(error.retry_after or 0.1)
                    continue
                self.generations += 1
                event = FeedbackEvent(
                    self.user, 1.0, item_id=generation.items[0].item_id, event_id=f"e{self.generations}"
                )
                insistent.submit_feedback([event], timeout=60)
                self.liked.append(event.event_id)
                self._ending.wait(self._pause)


class Traffic:
    """Shoppers within a block; `pause` seconds after each like leave some of two cores to everything else."""

    def __init__(self, address: str, name: str, count: int, pause: float = 0.2) -> None:
        self._ending = threading.Event()
        self.shoppers = [Shopper(f"{name}-{number}", address, self._ending, pause) for number in range(count)]

    def __enter__(self) -> Self:
        for shopper in self.shoppers:
            shopper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        for shopper in self.shoppers:
            shopper.join(120)
            assert not shopper.is_alive()

    @property
    def errors(self) -> list[PapaError]:
        return [error for shopper in self.shoppers for error in shopper.errors]

    def go_on(self, rounds: int = 2) -> None:
        """Waits until every shopper has got that many more generations."""
        before = Counter({shopper.user: shopper.generations for shopper in self.shoppers})
        until(lambda: all(shopper.generations >= before[shopper.user] + rounds for shopper in self.shoppers))

"""Embeds pictures by the backbone's features, those that the taste heads use, between the engine's denoising steps."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from papa.denoiser import Denoiser
from papa.denoiser.wrapper import FEATURE_GRID, FEATURE_TIMESTEP
from papa.pixels import to_x0
from papa_serving.contracts.catalogue import Encoder
from papa_serving.contracts.errors import PapaError, QueueFull

CHUNK = 16
"""Pictures that are embedded between two denoising steps: no running generation waits for more than these at a time."""
QUEUED = 1_024
"""Pictures that wait at most. One tenant holds at most as many as there is room left."""
RETRY_AFTER = 1.0
"""Seconds after which a caller may try again when the queue is full."""


@dataclass(eq=False)
class _Chunk:
    """Pictures that wait. Shape: `pictures` [n, *image_shape] uint8; the result is [n, F] float16."""

    tenant: str
    pictures: Tensor
    result: Future[Tensor] = field(default_factory=Future)


class Embedder:
    """The queue of pictures to embed. Any thread may `submit`; `work` and `close` are the engine's."""

    def __init__(self, denoiser: Denoiser, wake: Callable[[], None]) -> None:
        """`wake` is called when something was submitted."""
        self._denoiser, self._wake = denoiser, wake
        self._lock = threading.Lock()
        self._waiting: deque[_Chunk] = deque()
        self._held: Counter[str] = Counter()
        self._closed: PapaError | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def submit(self, tenant: str, pictures: Tensor) -> Sequence[Future[Tensor]]:
        """Queues pictures; the results are theirs in order, chunk by chunk. Shape: [n, *image_shape] uint8.

        Raises QueueFull, and the error that `close` was given.
        """
        chunks = [_Chunk(tenant, each) for each in pictures.split(CHUNK)]
        with self._lock:
            if self._closed is not None:
                raise self._closed
            total = self._held.total()
            if total and self._held[tenant] + len(pictures) > QUEUED - total:
                raise QueueFull(f"{total} pictures wait to be embedded", retry_after=RETRY_AFTER)
            self._held[tenant] += len(pictures)
            self._waiting.extend(chunks)
        self._wake()
        return [chunk.result for chunk in chunks]

    def work(self) -> None:
        """Embeds one chunk, if any waits. Its failure is its caller's alone."""
        with self._lock:
            if not self._waiting:
                return
            chunk = self._waiting.popleft()
        try:
            # A caller who has gone has cancelled it.
            if chunk.result.set_running_or_notify_cancel():
                chunk.result.set_result(self._embedded(chunk.pictures))
        except Exception as error:
            chunk.result.set_exception(error)
        finally:
            self._release(chunk)

    def close(self, error: PapaError) -> None:
        """Ends all that waits with `error`, and refuses whatever comes."""
        with self._lock:
            self._closed, left = error, list(self._waiting)
            self._waiting.clear()
        for chunk in left:
            self._release(chunk)
            if chunk.result.set_running_or_notify_cancel():
                chunk.result.set_exception(error)

    @torch.inference_mode()
    def _embedded(self, pictures: Tensor) -> Tensor:
        """The features of the pictures as learning would store them. Shape: [n, *image_shape] uint8 → [n, F]."""
        denoiser = self._denoiser
        x0 = denoiser.encode(to_x0(pictures).to(denoiser.device))
        if not denoiser.clips:
            x0 = x0.to(denoiser.sample_dtype).float()
        return denoiser.features(x0).to("cpu", torch.float16)

    def _release(self, chunk: _Chunk) -> None:
        with self._lock:
            self._held[chunk.tenant] -= len(chunk.pictures)
            self._held += Counter()  # drops zeros


def encoder_of(denoiser: Denoiser) -> Encoder:
    """The backbone as an encoder. Its name changes with all that the features depend on.

    Runs the backbone once, so not while an engine does.
    """
    parts = f"{denoiser.backbone_hash}/{FEATURE_TIMESTEP}/{FEATURE_GRID}"
    return Encoder(hashlib.sha256(parts.encode()).hexdigest()[:32], denoiser.feature_size)

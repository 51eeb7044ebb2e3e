"""The stack of adapters in device memory."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict

import torch
from torch import Tensor

from papa_serving.contracts.identity import UserKey
from papa_serving.generator.job import AdapterKey, HostAdapter


class Slots:
    """A table [slots + 1, P] and which adapter lies in which row; row 0 is the base, all zeros.

    The least recently used adapter makes room, never one that running rows hold. Acquiring and releasing belong to
    the engine's thread; `find` may be called from any.
    """

    def __init__(self, slots: int, size: int, device: torch.device, dtype: torch.dtype) -> None:
        self.capacity = slots
        self.table = torch.zeros(slots + 1, size, device=device, dtype=dtype)
        self._resident: OrderedDict[AdapterKey, tuple[int, HostAdapter]] = OrderedDict()
        self._holders: Counter[AdapterKey] = Counter()
        self._free = list(range(slots, 0, -1))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._resident)

    def find(self, key: AdapterKey) -> HostAdapter | None:
        """The adapter when it is resident, else None."""
        with self._lock:
            entry = self._resident.get(key)
        return entry[1] if entry else None

    def acquire(self, adapter: HostAdapter) -> int | None:
        """The adapter's slot, held until it is released as often as it was acquired; None if all slots are held."""
        with self._lock:
            entry = self._resident.get(adapter.key)
            slot = entry[0] if entry else self._room()
            if slot is None:
                return None
            if entry is None:
                self.table[slot].copy_(adapter.weights, non_blocking=True)
                self._resident[adapter.key] = (slot, adapter)
            self._resident.move_to_end(adapter.key)
            self._holders[adapter.key] += 1
            return slot

    def release(self, key: AdapterKey) -> None:
        """Gives back what one `acquire` took; the adapter stays resident until its slot is needed."""
        with self._lock:
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]

    def forget(self, user: UserKey) -> None:
        """Wipes the user's adapters that no running row holds."""
        with self._lock:
            for key in [key for key in self._resident if key.user == user and key not in self._holders]:
                slot, _adapter = self._resident.pop(key)
                self.table[slot].zero_()
                self._free.append(slot)

    def users(self) -> set[UserKey]:
        """The users whose adapters are resident."""
        with self._lock:
            return {key.user for key in self._resident}

    def gather(self, slots: list[int]) -> Tensor:
        """The weights of each row, in one operation. Shape: [len(slots), P]."""
        return self.table.index_select(0, torch.tensor(slots, device=self.table.device))

    def _room(self) -> int | None:
        if self._free:
            return self._free.pop()
        idle = next((key for key in self._resident if key not in self._holders), None)
        return None if idle is None else self._resident.pop(idle)[0]

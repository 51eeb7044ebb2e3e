"""Implements the updater with the papa library: files in, files out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from papa.adapter import Adapter, new_adapter
from papa.config import UpdateConfig, update_config
from papa.denoiser import Denoiser, fast_type, load_denoiser
from papa.pixels import to_x0
from papa.revision_files import (
    MANIFEST_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    AdapterDamagedError,
    Origin,
    digest,
    pack,
    unpack,
)
from papa.updating import Labels, UpdateJob, UpdateStats, update_many
from papa_serving.contracts.errors import RevisionDamaged
from papa_serving.contracts.feedback import LoggedEvent
from papa_serving.contracts.samples import unpack_prompted
from papa_serving.settings import GateSettings, Settings
from papa_serving.trainer.gate import Gate
from papa_serving.trainer.updater import Refused, Trained, Updater, UserUpdate, Weights, update_seed


class PapaUpdater(Updater):
    """Trains with the PAPA objective on the deployed backbone and passes every result through the gate."""

    files = (MANIFEST_FILE, WEIGHTS_FILE, STATE_FILE)

    def __init__(self, denoiser: Denoiser, config: UpdateConfig, gate: GateSettings) -> None:
        self.backbone_hash = denoiser.backbone_hash
        self._denoiser = denoiser
        self._config = config
        self._gate = Gate(denoiser, gate, config)

    @override
    def flaw(self, event: LoggedEvent) -> str:
        if event.cancels:
            return ""
        # Decoding checks all lengths, so a sample that passes here cannot fail later.
        try:
            sample, prompt = unpack_prompted(event.sample)
            self._denoiser.conditions([prompt])
        except ValueError as error:  # PromptRefused is one
            return f"the sample does not decode: {error}"
        if sample.dtype == np.uint8 and sample.shape == self._denoiser.image_shape:
            return ""
        if sample.dtype == np.float16 and sample.shape == self._denoiser.sample_shape and not self._denoiser.clips:
            return "" if bool(np.isfinite(sample).all()) else "the sample holds values that are not finite"
        return f"the sample is {sample.dtype} {sample.shape}, the backbone's {self._denoiser.sample_shape}"

    @override
    def verify(self, weights: Weights) -> None:
        self._adapter(weights, 0)

    @override
    def update(self, updates: Sequence[UserUpdate], step_scale: float) -> list[Trained | Refused]:
        """Makes one forward and backward pass per step for all users. The gate also judges all in one batch."""
        config = replace(self._config, learning_rate=self._config.learning_rate * step_scale)
        seeds = [update_seed(self.backbone_hash, update) for update in updates]
        jobs = [self._job(update, seed) for update, seed in zip(updates, seeds, strict=True)]
        learning = [job for job in jobs if len(job.labels.grades) or len(job.adapter.replay)]
        results = iter(update_many(self._denoiser, learning, config) if learning else ())
        trained = [next(results) if job in learning else self._unlearnt(job) for job in jobs]
        verdicts = self._gate.judge(trained)
        return [
            verdict or self._packed(update, adapter, stats, seed, config)
            for update, seed, (adapter, stats), verdict in zip(updates, seeds, trained, verdicts, strict=True)
        ]

    def _job(self, update: UserUpdate, seed: int) -> UpdateJob:
        """Leaves out labels that were taken back, from the replay and from the new labels."""
        adapter = self._adapter(update.start, seed)
        gone = {event.cancels for event in update.batch.events if event.cancels}
        kept = [event for event in update.batch.events if not event.cancels and event.sequence not in gone]
        adapter = replace(adapter, replay=adapter.replay.without(gone))
        return UpdateJob(adapter, labels(kept, self._denoiser), seed)

    def _unlearnt(self, job: UpdateJob) -> tuple[Adapter, UpdateStats]:
        """A fresh adapter for a user who has no labels left."""
        return new_adapter(self._denoiser, job.seed), UpdateStats(0, 0, 0.0, 0.0, 0.0, 0.0, 0, 0, restarted=True)

    def _adapter(self, weights: Weights, seed: int) -> Adapter:
        if not weights.files:
            return new_adapter(self._denoiser, seed)
        try:
            return unpack(weights.files, self._denoiser.layout, self._denoiser.hashes, weights.sha256)
        except AdapterDamagedError as error:
            raise RevisionDamaged(f"{error.reason}: {error}") from error

    def _packed(
        self, update: UserUpdate, adapter: Adapter, stats: UpdateStats, seed: int, config: UpdateConfig
    ) -> Trained:
        events = update.batch.events
        origin = Origin(
            backbone_hash=self.backbone_hash,
            parent=update.parent,
            # The time of this attempt would give the same revision another name each time.
            created_at=events[-1].accepted_at,
            events=tuple(event.event_id for event in events),
            first_sequence=events[0].sequence,
            last_sequence=events[-1].sequence,
            seed=seed,
            stats={name: float(value) for name, value in asdict(stats).items()},
        )
        files = pack(adapter, self._denoiser.layout, config, origin)
        return Trained(files, digest(files[MANIFEST_FILE]), stats.loss_last, len(adapter.replay))


def load_updater(settings: Settings) -> PapaUpdater:
    """Loads the backbone. Raises FileNotFoundError or ValueError if it cannot be used."""
    mine = settings.trainer
    torch.set_num_threads(mine.threads)
    precision = {"auto": fast_type(mine.device), "float32": None, "bfloat16": torch.bfloat16}[mine.precision]
    denoiser = load_denoiser(settings.backbone, device=mine.device, autocast=precision)
    return PapaUpdater(denoiser, update_config(denoiser.clips), mine.gate)


def labels(events: Sequence[LoggedEvent], denoiser: Denoiser) -> Labels:
    """The events' samples, grades and prompts as the library takes them, in order."""
    if not events:
        return Labels(torch.zeros(0, *denoiser.sample_shape, dtype=denoiser.sample_dtype), torch.zeros(0))
    unpacked = [unpack_prompted(event.sample) for event in events]
    samples = torch.stack([_x0(torch.from_numpy(values.copy()), denoiser) for values, _ in unpacked])
    prompts = tuple(prompt for _, prompt in unpacked)
    sequences = tuple(event.sequence for event in events)
    return Labels(samples, torch.tensor([event.grade for event in events]), prompts if any(prompts) else (), sequences)


def _x0(values: Tensor, denoiser: Denoiser) -> Tensor:
    """The sample as the replay stores it. For a latent backbone, a catalogue picture is encoded to latents."""
    if values.dtype == denoiser.sample_dtype:
        return values
    return denoiser.encode(to_x0(values)[None])[0].to("cpu", denoiser.sample_dtype)

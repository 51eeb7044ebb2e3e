"""Builds the engine and all that it needs from the settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from papa.adoption import Adoption
from papa.config import update_config
from papa.denoiser import Denoiser, fast_type, load_denoiser
from papa_serving.contracts.catalogue import Encoder
from papa_serving.contracts.items import BackboneInfo, ItemStore
from papa_serving.contracts.revisions import RevisionStore, UserDirectory
from papa_serving.contracts.vocabulary import Vocabulary
from papa_serving.generator.adapters import Adapters
from papa_serving.generator.embedding import encoder_of
from papa_serving.generator.engine import Engine, EngineConfig
from papa_serving.generator.generation import Defaults, Generator
from papa_serving.generator.items import Items
from papa_serving.generator.packing import Packer
from papa_serving.generator.prompting import Prompter
from papa_serving.generator.slots import Slots
from papa_serving.generator.tastes import Tastes
from papa_serving.settings import GeneratorSettings, Settings


@dataclass(frozen=True)
class Stores:
    """The stores that the generator reads and writes."""

    users: UserDirectory
    revisions: RevisionStore
    items: ItemStore


@dataclass(frozen=True)
class Room:
    """The engine, not started yet, and what is built around it."""

    engine: Engine
    generator: Generator
    adapters: Adapters
    packer: Packer
    backbone_info: BackboneInfo
    encoder: Encoder
    tastes: Tastes


def assemble(settings: Settings, stores: Stores) -> Room:
    """Loads the backbone and builds everything. Raises FileNotFoundError or ValueError for an unusable backbone."""
    mine = settings.generator
    torch.set_num_threads(mine.threads)
    autocast = {"auto": fast_type(mine.device), "weights": None, "bfloat16": torch.bfloat16}[mine.precision]
    denoiser = load_denoiser(
        settings.backbone, None, mine.device, getattr(torch, mine.dtype), autocast, mine.channels_last
    )
    slots = Slots(mine.slots, denoiser.layout.size, denoiser.device, denoiser.dtype)
    learning = update_config(denoiser.clips)
    config = EngineConfig(mine.max_rows, mine.max_queued_rows, learning.adapt_from, clip=denoiser.clips)
    engine = Engine(denoiser, slots, config)
    adapters = Adapters(stores.users, stores.revisions, denoiser, slots, mine.host_cache, mine.like_probability)
    prompter = Prompter(denoiser, mine.guidance)
    generator = Generator(engine, adapters, Items(stores.items, denoiser), defaults(mine), prompter)
    packer = Packer(Adoption.of(denoiser, learning, settings.trainer.gate.max_norm))
    info, encoder = backbone_info(settings.backbone, denoiser), encoder_of(denoiser)
    tastes = Tastes(adapters, stores.revisions, denoiser.unrated, engine.embedder, encoder)
    tastes.teaching = mine.teaching
    return Room(engine, generator, adapters, packer, info, encoder, tastes)


def defaults(settings: GeneratorSettings) -> Defaults:
    """The values of a request that names none."""
    return Defaults(settings.sampler, settings.steps, settings.exploration, settings.teaching, settings.overdraw)


def backbone_info(name: str, denoiser: Denoiser) -> BackboneInfo:
    """The record about the backbone that the generator announces to the other services."""
    vocabulary = Vocabulary(*denoiser.vocabulary)
    return BackboneInfo(denoiser.backbone_hash, name, denoiser.image_shape, denoiser.takes_prompt, vocabulary)

"""The bounds of a generation request. The gateway refuses what exceeds them, and so does the engine at its own port.

A deployment's settings may narrow `MAX_COUNT` and `MAX_STEPS`, never widen them.
"""

from __future__ import annotations

MAX_ID = 128
"""Characters of an identifier: tenant, user, event, item, generation, request or revision."""
MAX_PROMPT = 1_000
"""Characters of a prompt; the text encoders read 77 tokens of it."""
MAX_GUIDANCE = 30.0
"""Guidance scale; pictures are saturated far below it."""
MAX_OVERDRAW = 4.0
"""Draws per item that a caller may ask for: as many as one item may take (papa.selection.DRAWS_PER_ITEM)."""
MAX_REMEMBERED_LABELS = 512
"""Labels of one user that learning remembers: as many likes as dislikes (papa.config.UpdateConfig)."""
MAX_EDGE = 4_096
"""Pixels of the longest edge that a caller may ask for."""
MAX_QUALITY = 100
MAX_SEED = 2**63 - 1
MAX_RANDOM_SEED = 2**53 - 1
"""The largest seed that the service chooses itself: programs whose numbers are doubles (JSON) hold it exactly."""
MAX_COUNT = 1_024
"""Items of one generation: as many rows as the engine's queue holds by default."""
MAX_GENERATIONS = 100
"""Generations of one call that is for many users."""
MAX_STEPS = 4_000
"""Denoising steps of one item: the longest schedule of published backbones. The engine takes at most T of its own."""
MAX_EMBEDDED = 64
"""Pictures of one Embed."""
MAX_JUDGED = 512
"""Embeddings of one Judge."""
MAX_RECOMMENDED = 64
"""Items of one Recommend."""
MAX_RANKED = 256
"""Items of one Rank."""
MAX_RANKED_IMAGES = 16
"""Pictures of one Rank: each costs a pass of the backbone."""
MAX_ENGINE_MESSAGE_BYTES = 64 * 2**20
"""The largest message between gateway and engine: several large items, or an adapter."""
MAX_NOTES = 16
"""Entries of a caller's metadata, and tags."""
MAX_NOTE_KEY, MAX_NOTE_VALUE = 64, 256
"""Characters of a tag or of a key of metadata, and of a value."""
MAX_NOTES_SIZE = 2 * 2**10
"""Bytes of a caller's metadata and tags together, as JSON: they are copied to each item of a generation."""
MAX_NOTES_BYTES = 64 * 2**10
"""The largest encoded notes between gateway and engine: more than the largest that are accepted."""
ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "state.safetensors",
    "taste.safetensors",
    "manifest.json",
)
"""The files of an imported adapter; the first two are required."""

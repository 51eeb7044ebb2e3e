"""Every key that the product keeps in Redis.

`papa` is the prefix of the settings. Keys of one partition carry its hash tag, so that on Redis Cluster they share a
slot and one script can change them together; NN is the partition, D the user's digest (UserKey.digest).

    papa:backbone                    string  the deployed backbone, JSON (BackboneInfo)
    papa:partitions                  string  the number of partitions, fixed at first use
    papa:members                     hash    trainers → until when (ms), and the length of that (ms)

    papa:{pNN}:events                stream  accepted events that no revision has applied (feedback/entries.py);
                                             the pending list of group "trainers" counts the attempts at each
    papa:{pNN}:dead                  stream  dead letters: an event's fields and why it died
    papa:{pNN}:users                 zset    the users of the partition who have feedback or an adapter (`user_entry`);
                                             score: 0
    papa:{pNN}:lease                 hash    owner (absent when free), epoch (never goes back), until (ms), length (of
                                             the lease when it was last prolonged, ms)
    papa:{pNN}:sums                  hash    of experiments, "ARM WHAT" → sum over the partition's users (count.lua);
                                             expires
    papa:{pNN}:sums:D                hash    the same over the users of one tenant, by its digest; expires
    papa:{pNN}:call:TOKEN            string  what a call answered that must not happen twice; lives a minute

    papa:{pNN}:user:D                hash    the user's state, see below; a channel of this name tells of changes
    papa:{pNN}:user:D:pending        zset    entry ids of the user's unapplied events; score: sequence
    papa:{pNN}:user:D:letters        zset    ids of the user's dead letters; score: sequence
    papa:{pNN}:user:D:ids            hash    event id → 8 bytes digest of what was said, the sequence, then
                                             + (a like), - (a dislike) or x (taken back, or taking back)
    papa:{pNN}:user:D:older_ids      hash    the same, for older ids (`ids`, renamed)
    papa:{pNN}:user:D:noted_ids      hash    the same, for events that are no label: x, or n where a label had no item
    papa:{pNN}:user:D:noted_older_ids hash   the same, for older ids (`noted_ids`, renamed)
    papa:{pNN}:user:D:lineage        zset    revision ids; score: their number, 1, 2, …
    papa:{pNN}:user:D:records        hash    revision id → its JSON (Revision)
    papa:{pNN}:user:D:items          zset    ids of the user's items; score: when they expire, in ms
    papa:{pNN}:user:D:item:ID        hash    sample, revision, generation, seed, notes (JSON, absent without); expires
    papa:{pNN}:user:D:attributed     stream  the user's newest events that say more than a label: a JSON object in the
                                             field `d`; expires
    papa:{pNN}:user:D:counts         hash    arm of an experiment → what the user was shown and did; expires
    papa:{pNN}:user:D:impressions    stream  what the user was shown, newest: a JSON object in the field `d`; expires
    papa:{pNN}:user:D:seen           zset    catalogue, ASCII 0 and id of the items recommended lately; score: when, in
                                             ms; expires

Keys of one catalogue carry its own hash tag; C is its digest (CatalogueKey.digest), D that of its tenant. They may be
in a Redis of their own (catalogue.url).

    papa:catalogues:D                hash    names of the tenant's catalogues → mark of their last claim
    papa:{cC}:vectors                vset    item id → embedding at 8 bits a number, and attributes that filters read
    papa:{cC}:ids                    zset    ids of the items; all of score 0, so that they are in their own order
    papa:{cC}:encoder                string  name of the encoder of all embeddings; absent without items
    papa:{cC}:item:ID                hash    embedding (float16), encoder, metadata (JSON), sample, fingerprint, updated
                                             (ms)

Fields of a user's state: likes, dislikes (accepted so far); pending, dead (events now in the stream, dead letters);
sequence (of the last event); revisions (how many were ever made); current (revision id, "" for the base) and record
(its JSON); version; merging (digest of the user that this one is being merged into) and merge (the name of that merge);
ended (sequences of the newest events taken back since it began) and renumbered (NEW:FIRST sequence of the newest dead
letters retried since);
merged (for the newest merges into this user name:sequence, of the last label that was brought); ids_since (ms, when
`ids` was begun); set_aside (the sequence when `ids` last became `older_ids`). After a deletion there is only `deleted`,
the receipt, until the tombstone expires.
"""

from __future__ import annotations

from papa_serving.contracts.identity import UserKey, partition_of

GROUP = "trainers"
"""The consumer group of every events stream."""


class PartitionKeys:
    """The keys of one partition."""

    __slots__ = ("dead", "events", "lease", "root", "users")

    def __init__(self, prefix: str, partition: int) -> None:
        self.root = f"{prefix}:{{p{partition:02d}}}"
        self.events = f"{self.root}:events"
        self.dead = f"{self.root}:dead"
        self.lease = f"{self.root}:lease"
        self.users = f"{self.root}:users"

    def sums(self, tenant: str = "") -> str:
        """The key of what experiments sum up, over all users of the partition or those of one tenant."""
        return f"{self.root}:sums:{UserKey(tenant, '').digest}" if tenant else f"{self.root}:sums"

    def call(self, token: str) -> str:
        """The key of the remembered answer of one call."""
        return f"{self.root}:call:{token}"


def user_entry(user: UserKey) -> str:
    """How the list of a partition's users names this one: no id contains the separator, and tenants stay together."""
    return f"{user.tenant}\0{user.user}"


def user_of_entry(entry: bytes) -> UserKey:
    """The inverse of `user_entry`. Raises ValueError for what it does not make."""
    tenant, separator, name = entry.decode().partition("\0")
    if not separator:
        raise ValueError("an entry of the list of users names no user")
    return UserKey(tenant, name)


class UserKeys:
    """The keys of one user. Each is built on demand: an append needs half of them, a look-up one."""

    __slots__ = ("partition", "state")

    def __init__(self, partition: PartitionKeys, digest: str) -> None:
        self.partition = partition
        self.state = f"{partition.root}:user:{digest}"

    @property
    def pending(self) -> str:
        """Entry ids of the unapplied events."""
        return f"{self.state}:pending"

    @property
    def letters(self) -> str:
        """Ids of the dead letters."""
        return f"{self.state}:letters"

    @property
    def ids(self) -> str:
        """Event ids of the newest half. They expire one time to live after the user's last waiting event has left."""
        return f"{self.state}:ids"

    @property
    def older_ids(self) -> str:
        """Event ids of the half before; they expire with the others."""
        return f"{self.state}:older_ids"

    @property
    def noted_ids(self) -> str:
        """Event ids of events that are no label, the newest half."""
        return f"{self.state}:noted_ids"

    @property
    def older_noted_ids(self) -> str:
        """The half before."""
        return f"{self.state}:noted_older_ids"

    @property
    def lineage(self) -> str:
        """The order of the revisions."""
        return f"{self.state}:lineage"

    @property
    def records(self) -> str:
        """The records of the revisions."""
        return f"{self.state}:records"

    @property
    def items(self) -> str:
        """The ids of the items."""
        return f"{self.state}:items"

    @property
    def attributed(self) -> str:
        """Events with a type, an origin or notes."""
        return f"{self.state}:attributed"

    @property
    def impressions(self) -> str:
        """What the user was shown."""
        return f"{self.state}:impressions"

    @property
    def seen(self) -> str:
        """The items that were recommended lately."""
        return f"{self.state}:seen"

    @property
    def counts(self) -> str:
        """What the user was shown and did, by arm."""
        return f"{self.state}:counts"

    def item(self, item_id: str) -> str:
        """The key of one item. The id comes last, so it may contain any character."""
        return f"{self.state}:item:{item_id}"


class Keys:
    """All keys of a deployment."""

    def __init__(self, prefix: str, partitions: int) -> None:
        self.backbone = f"{prefix}:backbone"
        self.partition_count = f"{prefix}:partitions"
        self.members = f"{prefix}:members"
        self.partitions = tuple(PartitionKeys(prefix, number) for number in range(partitions))

    def user(self, user: UserKey) -> UserKeys:
        """The keys of `user`, in its partition."""
        return self.of_digest(user.digest)

    def of_digest(self, digest: str) -> UserKeys:
        """The keys of the user with this digest, in its partition."""
        return UserKeys(self.partitions[partition_of(digest, len(self.partitions))], digest)


def tenant_catalogues(prefix: str, tenant: str) -> str:
    """The key of the list of a tenant's catalogues."""
    return f"{prefix}:catalogues:{UserKey(tenant, '').digest}"


class CatalogueKeys:
    """The keys of one catalogue."""

    __slots__ = ("_root", "encoder", "ids", "vectors")

    def __init__(self, prefix: str, digest: str) -> None:
        self._root = f"{prefix}:{{c{digest}}}"
        self.vectors, self.ids = f"{self._root}:vectors", f"{self._root}:ids"
        self.encoder = f"{self._root}:encoder"

    def item(self, item_id: str) -> str:
        """The key of one item. The id comes last, so it may contain any character."""
        return f"{self._root}:item:{item_id}"

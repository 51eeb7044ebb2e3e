"""The one configuration schema: file < PAPA_* environment < flags, read once, at the edge.

`PAPA_TRAINER__MIN_LABELS=5` sets `trainer.min_labels`. Unknown fields are refused. Every default that shapes learning
is in papa.config; here is what a deployment decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from papa_serving.contracts.limits import MAX_COUNT, MAX_OVERDRAW, MAX_REMEMBERED_LABELS, MAX_STEPS
from papa_serving.settings.addresses import Host
from papa_serving.settings.attribution import AttributionSettings
from papa_serving.settings.section import LONGEST, Section, check_secret_file
from papa_serving.settings.tracing import TracingSettings
from papa_serving.settings.variables import FILE_VARIABLE, PREFIX, known_variables

DEFAULT_FILE = "papa.toml"


class RedisSettings(Section):
    """The Redis (or Valkey) that holds streams, items and user state."""

    url: str = Field(
        "",
        description="redis://, rediss://, unix://, redis+cluster:// or redis+sentinel:// URL; empty starts an embedded "
        "server",
    )
    password: SecretStr | None = Field(None, description="overrides the URL's")
    password_file: Path | None = Field(
        None,
        description="file with the password, where redis.password is not given; read again for new connections when it "
        "changes",
    )
    prefix: str = Field("papa", pattern=r"^[a-z0-9_-]{1,32}$", description="first part of every key")
    socket_timeout: float = Field(5.0, gt=0, le=LONGEST, description="seconds for one command")
    appendfsync: Literal["everysec", "always"] = Field("everysec", description="of the embedded server")
    require_persistence: bool = Field(True, description="refuse a Redis without AOF or that may evict keys")

    @model_validator(mode="before")
    @classmethod
    def _check_password_file(cls, given: Any) -> Any:
        return check_secret_file(given, "password")


class StoreSettings(Section):
    """The store of revisions, and the lifetimes of other data."""

    path: Path | None = Field(None, description="folder of the revisions; data_dir/revisions when absent")
    url: str = Field("", description="s3://, gs:// or az:// URL of the revisions, in place of a folder")
    credentials: Path | None = Field(
        None,
        description="folder with one file for each variable of the object store's client (AWS_ACCESS_KEY_ID, …), as "
        "Kubernetes mounts a Secret; read again when one changes; the environment's variables when absent",
    )
    item_ttl: float = Field(86_400.0, gt=0, le=LONGEST, description="seconds during which feedback may name an item")
    event_id_ttl: float = Field(
        7 * 86_400.0,
        gt=0,
        le=LONGEST,
        description="seconds during which a retried event_id is recognised; while the event waits, it is in any case",
    )
    tombstone_ttl: float = Field(
        86_400.0, gt=0, le=LONGEST, description="seconds before a deleted user id may be used afresh"
    )
    user_revisions: int = Field(
        200, ge=2, description="newest revisions of one user that are kept; older ones go, never the one in use"
    )
    user_items: int = Field(
        10_000, ge=64, description="newest items of one user that feedback may name; older ones go before item_ttl"
    )
    seen_ttl: float = Field(
        86_400.0, gt=0, le=LONGEST, description="seconds during which Recommend does not repeat an item for a user"
    )
    user_seen: int = Field(500, ge=1, le=2_000, description="newest items of one user that Recommend does not repeat")
    user_event_ids: int = Field(
        100_000,
        ge=4 * MAX_REMEMBERED_LABELS,
        description="event ids of one user that are recognised, at least four times gateway.max_events; beyond it the "
        "older half goes before event_id_ttl, but not while an event of that half waits; half as many more of "
        "events that are no label",
    )


class FeedbackSettings(Section):
    """The streams."""

    partitions: int = Field(64, ge=1, le=4096, description="fixed for the life of a deployment")
    backlog_limit: int = Field(
        100_000,
        ge=1,
        description="unapplied events per partition before BACKLOG_FULL; of one user no more than are free",
    )


class GateSettings(Section):
    """Bounds on an update before it is promoted, as ratios to a fresh adapter's norm or to the
    backbone."""

    max_norm: float = Field(10.0, gt=0, description="norm of the weights ÷ that of a fresh adapter")
    max_change: float = Field(3.0, gt=0, description="norm of one update's change ÷ that of a fresh adapter")
    probe_samples: int = Field(8, ge=0, description="samples drawn to look at; 0 switches the probe off")
    probe_steps: int = Field(6, ge=1, description="sampler steps of each")
    min_diversity: float = Field(0.3, ge=0, le=1, description="mean distance between samples ÷ the backbone's")
    min_contrast: float = Field(0.4, ge=0, le=1, description="deviation of the pixels ÷ the backbone's")
    max_shift: float = Field(
        0.6, gt=0, description="difference of the mean pixel from the backbone's; pixels are −1 to 1"
    )


class TrainerAutoscalingSettings(Section):
    """Scales the number of trainers by the age of the oldest label that no revision has applied."""

    max_actors: int = Field(1, ge=1, description="trainer actors at most; fixed at trainer.actors when not above it")
    target_age: float = Field(
        15.0,
        gt=0,
        le=LONGEST,
        description="seconds the oldest label may wait; well above max_wait plus the time of an update",
    )
    upscale_delay: float = Field(
        10.0, ge=0, le=LONGEST, description="seconds above the target before trainers are added"
    )
    downscale_delay: float = Field(
        300.0, ge=0, le=LONGEST, description="seconds below half the target before one is drained and removed"
    )


class TrainerSettings(Section):
    """The conditions and the resources of updates."""

    actors: int = Field(1, ge=1, description="trainer actors, the least when autoscaling")
    autoscaling: TrainerAutoscalingSettings = TrainerAutoscalingSettings()
    threads: int = Field(2, ge=1, description="torch threads per actor")
    min_labels: int = Field(10, ge=1, description="new labels of a user that start an update at once")
    max_wait: float = Field(2.0, ge=0, le=LONGEST, description="seconds the oldest label waits when there are fewer")
    max_labels: int = Field(
        256, ge=1, description="labels that one update consumes at most; an imported user is then ready in one update"
    )
    lease: float = Field(
        10.0, gt=0, le=LONGEST, description="seconds of a partition lease; a dead trainer's work waits this long"
    )
    poll: float = Field(0.05, gt=0, le=LONGEST, description="seconds between looks at an idle log")
    max_attempts: int = Field(
        5, ge=3, description="attempts at an event before it is a dead letter; from the third on it is trained on alone"
    )
    max_users: int = Field(
        2, ge=1, description="users of one joint update; each takes about 0.8 GB with the shipped backbone"
    )
    device: str = Field("cpu", description="torch device")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of products and convolutions; auto is bfloat16 where the device computes in it"
    )
    grace_seconds: float = Field(
        3.0, ge=0, le=LONGEST, description="on shutdown, time for the running update before it is abandoned"
    )
    gate: GateSettings = GateSettings()


class GeneratorSettings(Section):
    """The engine."""

    replicas: int = Field(1, ge=1, description="replicas, the least when autoscaling")
    max_replicas: int = Field(1, ge=1, description="replicas at most")
    threads: int = Field(2, ge=1, description="torch threads per replica")
    device: str = Field("cpu", description="torch device")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of weights and adapters")
    precision: Literal["weights", "auto", "bfloat16"] = Field(
        "weights", description="of products and convolutions; auto is bfloat16 where the device computes in it"
    )
    channels_last: bool = Field(False, description="lay convolutions out by pixel; see docs/results/engine.md")
    slots: int = Field(64, ge=1, description="adapters resident on the device")
    host_cache: int = Field(2_000, ge=1, description="adapters in host memory")
    token: SecretStr | None = Field(
        None, description="what the engine's port asks of the gateway; papa up makes one at each start"
    )
    token_file: Path | None = Field(
        None,
        description="file with that token, read again when it changes; of several lines all are accepted and the first "
        "one is shown",
    )
    insecure: bool = Field(False, description="open the engine's port without a token; Serve listens everywhere")
    max_rows: int = Field(64, ge=1, description="rows of one denoising step")
    max_queued_rows: int = Field(1024, ge=1, description="rows waiting before QUEUE_FULL; half of them of one user")
    sampler: Literal["ddpm", "ddim", "dpmpp_2m"] = "dpmpp_2m"
    steps: int = Field(12, ge=1, le=1000)
    exploration: float = Field(0.0, ge=0, le=1, description="share of items drawn from the base")
    teaching: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of items that may come from the base to teach, being in doubt; it is that of the first 15 "
        "labels and falls as 1 / labels after them",
    )
    overdraw: float = Field(
        2.0,
        ge=1,
        le=MAX_OVERDRAW,
        description="draws of a generation at most, in multiples of its items: what the user hardly likes is drawn "
        "again; 1 switches that off",
    )
    like_probability: bool = Field(
        True,
        description="say of each item how likely its user likes it, at one more evaluation of the backbone; off also "
        "switches overdraw and teaching off",
    )
    guidance: float = Field(5.0, ge=1, le=30, description="guidance scale of prompts, for backbones that take them")
    drain_seconds: float = Field(60.0, gt=0, le=LONGEST, description="time to finish running generations on shutdown")

    @property
    def default_overdraw(self) -> float:
        """The effective `overdraw`: without a like probability nothing is selected."""
        return self.overdraw if self.like_probability else 1.0

    @model_validator(mode="before")
    @classmethod
    def _check_token_file(cls, given: Any) -> Any:
        return check_secret_file(given, "token")


class TlsSettings(Section):
    """TLS of the public gRPC server; a changed certificate is taken up without a restart."""

    certificate: Path | None = Field(None, description="PEM file of the chain; absent: no TLS")
    key: Path | None = Field(None, description="PEM file of its private key")
    client_ca: Path | None = Field(None, description="PEM file; callers must show a certificate that it has signed")
    client_crl: Path | None = Field(
        None, description="PEM file of the revocation lists of those authorities; read again when it changes"
    )

    @model_validator(mode="after")
    def _complete(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        if self.client_crl is not None and self.client_ca is None:
            raise ValueError("client_crl needs client_ca")
        return self


class AuthSettings(Section):
    """Authentication: none, or a bearer token with every call that determines tenant, user and scopes."""

    mode: Literal["none", "keys", "jwt"] = Field("none", description="keys are for development")
    keys_file: Path | None = Field(None, description="TOML file of static keys (docs/security.md), for mode keys")
    jwks: str = Field("", description="JWKS or PEM file, or https URL of a JWKS, for mode jwt")
    refresh: float = Field(300.0, gt=0, le=LONGEST, description="seconds after which keys are read anew")
    audience: str = Field("", description="that a JWT must be for")
    issuer: str = Field("", description="that a JWT must come from")
    algorithms: tuple[str, ...] = Field(
        ("RS256", "PS256", "ES256", "EdDSA"), min_length=1, description="signatures that are accepted"
    )
    leeway: float = Field(30.0, ge=0, le=LONGEST, description="seconds that clocks may differ")
    tenant_claim: str = Field("tenant", min_length=1, description="claim with the tenant")
    user_claim: str = Field("user", min_length=1, description="claim with the one user; without it: the whole tenant")
    scope_claim: str = Field("scope", min_length=1, description="claim with the scopes, a list or separated by spaces")
    scope_prefix: str = Field("", description='before "generate", "feedback", "catalogue" and "admin" in that claim')
    tenant: str = Field("", description="tenant of a JWT that names none; empty: refuse it")

    @model_validator(mode="after")
    def _complete(self) -> AuthSettings:
        if self.mode == "keys" and self.keys_file is None:
            raise ValueError("mode keys needs keys_file")
        if self.mode == "jwt" and not (self.jwks and self.audience and self.issuer):
            raise ValueError("mode jwt needs jwks, audience and issuer")
        if any(name == "none" for name in map(str.lower, self.algorithms)):
            raise ValueError("an unsigned JWT is worth nothing")
        return self


class RateSettings(Section):
    """Rate limits of each gateway process. A draw of an item, a feedback event and any other call cost one. 0 is no
    limit."""

    tenant: float = Field(0.0, ge=0, description="per second and tenant")
    tenant_burst: float = Field(1_000.0, gt=0, description="that a rested tenant may use at once")
    user: float = Field(0.0, ge=0, description="per second and user")
    user_burst: float = Field(200.0, gt=0, description="that a rested user may use at once")
    tenant_calls: int = Field(0, ge=0, description="calls under way at once with one tenant's credentials")


class GatewaySettings(Section):
    """The public gRPC server."""

    host: Host = "127.0.0.1"
    port: int = Field(50051, ge=0, le=65535, description="0 takes a free one")
    insecure: bool = Field(False, description="let other machines call although nobody is asked who they are")
    generator: str = Field("127.0.0.1:9000", description="host:port of the generator's gRPC")
    engine_channel_age: float = Field(
        60.0,
        gt=0,
        le=LONGEST,
        description="seconds until the generator's name is resolved anew; running calls end where they are",
    )
    reflection: bool | None = Field(None, description="absent: on, unless callers must show a token")
    health_port: int | None = Field(
        None, ge=0, le=65535, description="the health service alone, without TLS, for probes that speak none"
    )
    tls: TlsSettings = TlsSettings()
    auth: AuthSettings = AuthSettings()
    rates: RateSettings = RateSettings()
    max_message_bytes: int = Field(8 * 2**20, ge=1024)
    max_count: int = Field(64, ge=1, le=MAX_COUNT, description="items of one Generate")
    max_steps: int = Field(1000, ge=1, le=MAX_STEPS)
    max_events: int = Field(1000, ge=1, description="events of one SubmitFeedback")
    max_connection_age: float = Field(
        1_800.0,
        gt=0,
        le=LONGEST,
        description="seconds until a connection is asked to begin anew, so that new gateways get load",
    )
    connection_grace: float = Field(
        300.0, gt=0, le=LONGEST, description="seconds for the calls that then still run on it"
    )
    max_image_bytes: int = Field(2**20, ge=64)
    max_image_pixels: int = Field(2**22, ge=64)
    max_concurrent_rpcs: int = Field(1024, ge=1, description="calls under way at once; one user holds half at most")
    max_held_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="bytes of the requests handled at once; one user holds half at most, a tenant or a connection "
        "without credentials seven eighths",
    )
    max_connection_rpcs: int = Field(512, ge=1, description="calls under way at once on one connection")
    first_message_seconds: float = Field(
        30.0,
        gt=0,
        le=LONGEST,
        description="from the start of a call to its first message; two while others wait to be read",
    )
    drain_seconds: float = Field(20.0, ge=0, le=LONGEST, description="from the signal to the end, for calls that run")
    notice_seconds: float = Field(
        1.0, ge=0, le=LONGEST, description="of those, between NOT_SERVING and the refusal of new calls"
    )


class CatalogueSettings(Section):
    """The tenants' catalogues of real items."""

    url: str = Field(
        "",
        description="URL of the Redis 8 or newer that holds them, of the same kinds as redis.url; empty: that of "
        "redis.url",
    )
    password: SecretStr | None = Field(None, description="overrides the URL's; needs catalogue.url")
    max_items: int = Field(1_000_000, ge=1, description="items of one catalogue")
    max_catalogues: int = Field(100, ge=1, description="catalogues of one tenant")

    @model_validator(mode="after")
    def _a_password_has_a_server(self) -> CatalogueSettings:
        if self.password is not None and not self.url:
            raise ValueError("catalogue.password is that of catalogue.url: set catalogue.url too, or redis.password")
        return self


class ClientSettings(Section):
    """How the commands of `papa` that call a running service identify themselves."""

    tls: bool = Field(False, description="speak TLS; also on when ca is set")
    ca: Path | None = Field(None, description="PEM file of the authority to trust; the system's when absent")
    certificate: Path | None = Field(None, description="PEM file of a certificate to show, for mutual TLS")
    key: Path | None = Field(None, description="PEM file of its private key")
    token: SecretStr | None = Field(None, description="bearer token of every call")
    token_file: Path | None = Field(None, description="file with that token, read anew for each call")


class PlaygroundSettings(Section):
    """The web page of `papa up`; whoever reaches it may rate for any user that its token may."""

    enabled: bool = Field(True, description="start it with papa up")
    host: Host = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8484, ge=0, le=65535, description="0 takes a free one")
    insecure: bool = Field(False, description="let other machines use it; it has no login")
    hosts: tuple[str, ...] = Field((), description="names, besides loopback's, by which browsers may call it")
    per_page: int | None = Field(
        None, ge=1, le=64, description="items of one grid; trainer.min_labels when absent, so that a grid is an update"
    )


class MetricsSettings(Section):
    """Prometheus."""

    host: Host = "127.0.0.1"
    port: int = Field(9464, ge=0, le=65535, description="0 takes a free one")


class RaySettings(Section):
    """The Ray cluster."""

    address: str = Field("", description="empty starts a local one")
    serve_grpc_port: int = Field(9000, ge=0, le=65535, description="of Ray Serve's proxy, inside the cluster; 0: free")


class LogSettings(Section):
    """Logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(BaseSettings):
    """All settings, one section per concern."""

    model_config = SettingsConfigDict(
        env_prefix="PAPA_", env_nested_delimiter="__", frozen=True, extra="forbid", toml_file=DEFAULT_FILE
    )

    data_dir: Path = Field(Path("papa-data"), description="embedded Redis, revisions, logs")
    backbone: str = Field("fashion_mnist", description="a shipped name, a diffusers folder or a hub id")
    redis: RedisSettings = RedisSettings()
    store: StoreSettings = StoreSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    attribution: AttributionSettings = AttributionSettings()
    trainer: TrainerSettings = TrainerSettings()
    generator: GeneratorSettings = GeneratorSettings()
    gateway: GatewaySettings = GatewaySettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    client: ClientSettings = ClientSettings()
    playground: PlaygroundSettings = PlaygroundSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    ray: RaySettings = RaySettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _one_generation_fits(self) -> Settings:
        if self.store.user_items < self.gateway.max_count:
            raise ValueError(
                f"store.user_items ({self.store.user_items}) must be at least gateway.max_count "
                f"({self.gateway.max_count}): a user must be able to keep the items of one generation"
            )
        return self

    @model_validator(mode="after")
    def _one_submission_is_remembered(self) -> Settings:
        """Half of the ids are sure to be known, and an event that takes another back writes both ids."""
        events = self.gateway.max_events
        if self.store.user_event_ids < 4 * events:
            raise ValueError(
                f"store.user_event_ids ({self.store.user_event_ids}) must be at least four times gateway.max_events "
                f"({events}), or a SubmitFeedback that is sent again may count twice: raise it to {4 * events}, or "
                f"lower gateway.max_events to {self.store.user_event_ids // 4}"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Precedence: flags (init), then environment, then file."""
        file = settings_cls.model_config.get("toml_file")
        if file == DEFAULT_FILE:
            file = os.environ.get(FILE_VARIABLE, DEFAULT_FILE)
        named = TomlConfigSettingsSource(settings_cls, file or os.devnull)
        return init_settings, KnownVariables(settings_cls), named


class KnownVariables(EnvSettingsSource):
    """The environment without PAPA_* variables that name no setting, for instance of a newer release."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        known = known_variables(self.settings_cls)
        return {
            name: value
            for name, value in super()._load_env_vars().items()
            if not name.upper().startswith(PREFIX) or name.upper() in known
        }

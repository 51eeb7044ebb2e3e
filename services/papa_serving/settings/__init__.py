"""The configuration: one schema, read once at the edge. Each room gets its section."""

from papa_serving.settings.attribution import AttributionSettings
from papa_serving.settings.schema import (
    AuthSettings,
    CatalogueSettings,
    ClientSettings,
    FeedbackSettings,
    GateSettings,
    GatewaySettings,
    GeneratorSettings,
    LogSettings,
    MetricsSettings,
    PlaygroundSettings,
    RateSettings,
    RaySettings,
    RedisSettings,
    Settings,
    StoreSettings,
    TlsSettings,
    TrainerAutoscalingSettings,
    TrainerSettings,
)
from papa_serving.settings.tracing import TracingSettings

__all__ = [
    "AttributionSettings",
    "AuthSettings",
    "CatalogueSettings",
    "ClientSettings",
    "FeedbackSettings",
    "GateSettings",
    "GatewaySettings",
    "GeneratorSettings",
    "LogSettings",
    "MetricsSettings",
    "PlaygroundSettings",
    "RateSettings",
    "RaySettings",
    "RedisSettings",
    "Settings",
    "StoreSettings",
    "TlsSettings",
    "TracingSettings",
    "TrainerAutoscalingSettings",
    "TrainerSettings",
]

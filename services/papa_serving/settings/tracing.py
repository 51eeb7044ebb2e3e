"""The settings of traces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, model_validator

from papa_serving.settings.section import Section, with_secret_of_file

_HEADER = re.compile(r"([a-z0-9_.-]+)\s*=\s*([\x20-\x7e]+)")


class TracingSettings(Section):
    """Traces from a like to what it changed, sent to an OTLP collector."""

    enabled: bool = Field(False, description="record spans and send them")
    endpoint: str = Field(
        "http://127.0.0.1:4317",
        pattern=r"^https?://[^/@\s]+$",
        description="OTLP receiver, gRPC; https:// speaks TLS",
    )
    ca: Path | None = Field(None, description="PEM file of the authority to trust; the system's when absent")
    headers: SecretStr | None = Field(
        None, description="name=value,… sent to the collector, for its credentials; from a file or variable only"
    )
    headers_file: Path | None = Field(None, description="file with them, where they are not given otherwise")
    sample_ratio: float = Field(
        1.0, ge=0, le=1, description="share of the calls to record whose callers have not decided"
    )
    timeout: float = Field(5.0, gt=0, description="seconds for one export; at most these delay a stop of the gateway")
    queue: int = Field(2048, ge=512, description="spans that wait for the collector; what comes beyond is dropped")

    @model_validator(mode="before")
    @classmethod
    def _read_headers(cls, given: dict[str, Any]) -> dict[str, Any]:
        return with_secret_of_file(given, "headers")

    @model_validator(mode="after")
    def _well_formed(self) -> TracingSettings:
        headers_of(self)
        return self


def headers_of(settings: TracingSettings) -> tuple[tuple[str, str], ...]:
    """Parses headers. Raises ValueError, whose message never contains a value."""
    text = settings.headers.get_secret_value() if settings.headers is not None else ""
    parts = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    found = [_HEADER.fullmatch(part) for part in parts]
    if not all(found):
        raise ValueError("headers must read name=value,name=value: names in lower case, values in printable ASCII")
    return tuple((match[1], match[2]) for match in found if match)

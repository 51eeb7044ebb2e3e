"""The settings of traces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, model_validator

from papa_serving.settings.section import LONGEST, Section, check_secret_file, with_secret_of_file

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
    headers_file: Path | None = Field(
        None, description="file with them, where they are not given otherwise; read again when it changes"
    )
    sample_ratio: float = Field(
        1.0, ge=0, le=1, description="share of the calls to record whose callers have not decided"
    )
    timeout: float = Field(
        5.0, gt=0, le=LONGEST, description="seconds for one export; at most these delay a stop of the gateway"
    )
    queue: int = Field(2048, ge=512, description="spans that wait for the collector; what comes beyond is dropped")

    @model_validator(mode="before")
    @classmethod
    def _check_headers_file(cls, given: Any) -> Any:
        found = with_secret_of_file(given, "headers")
        if isinstance(found, dict):
            parse_headers(found.get("headers"))
        return check_secret_file(given, "headers")


def parse_headers(text: str | SecretStr | None) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC takes them. Raises ValueError, whose message never contains a value."""
    given = text.get_secret_value() if isinstance(text, SecretStr) else text or ""
    parts = [part.strip() for part in re.split(r"[,\n]", given) if part.strip()]
    found = [_HEADER.fullmatch(part) for part in parts]
    if not all(found):
        raise ValueError("headers must read name=value,name=value: names in lower case, values in printable ASCII")
    return tuple((match[1], match[2]) for match in found if match)

"""Settings of attribution: what events are worth, and how much is kept of what users see and do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from papa_serving.contracts.attribution import EVENT_WEIGHTS
from papa_serving.settings.experiments import Experiments
from papa_serving.settings.section import LONGEST, Section

MIN_WEIGHT = 0.001
"""The smallest weight in absolute value that is not 0, as of a grade."""


def _checked(weights: dict[str, float]) -> dict[str, float]:
    for name, weight in weights.items():
        if name not in EVENT_WEIGHTS:
            raise ValueError(f"there is no type of event {name!r}; there are {', '.join(EVENT_WEIGHTS)}")
        if not math.isfinite(weight) or abs(weight) > 1 or 0 < abs(weight) < MIN_WEIGHT:
            raise ValueError(f"the weight of {name} must be 0, or in [-1, 1] and at least {MIN_WEIGHT} from 0")
    return weights


Weights = Annotated[dict[str, float], AfterValidator(_checked)]


class AttributionSettings(Section):
    """Typed events, and what is kept so that an owner can attribute them."""

    weights: Weights = Field(
        dict(EVENT_WEIGHTS),
        description="what each type of event is worth as a grade, in [-1, 1]; 0 is no label; types that are not named "
        "keep their default",
    )
    tenant_weights: dict[str, Weights] = Field(
        {}, description="the same for single tenants, by name; types that are not named are worth what weights says"
    )
    events: int = Field(
        500, ge=1, description="newest events of one user that are kept with their type, origin and notes"
    )
    impressions: int = Field(200, ge=1, description="newest impressions of one user that are kept")
    impression_share: float = Field(
        1.0, ge=0, le=1, description="share of generations and recommendations of which an impression is kept"
    )
    tenant_impressions: float = Field(
        100.0, ge=0, description="impressions of one tenant that each gateway keeps per second; 0 is no limit"
    )
    ttl: float = Field(30 * 86_400.0, gt=0, le=LONGEST, description="seconds for which impressions and events are kept")

    experiments: Experiments = Field(
        {}, description="by name: salt, and arms by name with their share and what they set (docs/attribution.md)"
    )

    def weights_of(self, tenant: str) -> Mapping[str, float]:
        """What each type is worth to a tenant."""
        return {**EVENT_WEIGHTS, **self.weights, **self.tenant_weights.get(tenant, {})}

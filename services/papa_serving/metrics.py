"""Every Prometheus metric of the product, in base units and without a user label.

All processes of a machine write into one folder (`PROMETHEUS_MULTIPROC_DIR`, set before this module is imported) and
one endpoint serves the sum, so that Ray's worker processes, whose ports nobody knows, are scraped like any other.
Each metric is documented by its help text; docs/metrics.md is generated from here.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

if _folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    # The first metric opens its file at once, on whichever node this is.
    Path(_folder).mkdir(parents=True, exist_ok=True)

RPC_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LOOP_SECONDS_BUCKETS = (0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 20, 30, 60, 120, 300)
AGE_SECONDS_BUCKETS = (1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)
REVISIONS_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHARE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

BUILD_INFO = Gauge(
    "papa_build_info", "Constant 1; the labels say what runs.", ["version", "backbone"], multiprocess_mode="max"
)

RPC_HANDLED = Counter(
    "papa_rpc_handled_total",
    "RPCs ended, by method and gRPC status code; also each generation of a GenerateMany, as GenerateMany/Generate.",
    ["method", "code"],
)
RPC_SECONDS = Histogram(
    "papa_rpc_duration_seconds", "From the arrival of an RPC to its end.", ["method"], buckets=RPC_SECONDS_BUCKETS
)
RPC_IN_FLIGHT = Gauge("papa_rpc_in_flight", "RPCs being handled.", ["method"], multiprocess_mode="livesum")

CERTIFICATE_EXPIRY = Gauge(
    "papa_gateway_certificate_expiry_timestamp_seconds",
    "Unix time at which the gateway's TLS certificate expires; 0 without TLS.",
    multiprocess_mode="livemax",
)

FEEDBACK_EVENTS = Counter(
    "papa_feedback_events_total",
    "Feedback events by outcome: accepted, duplicate, or the reason of the refusal.",
    ["outcome"],
)
FEEDBACK_LABELS = Counter(
    "papa_feedback_labels_total",
    "Accepted likes and dislikes, by how many labels their user had given, this one included: 1-10, 11-30, … 1001+.",
    ["label", "cohort"],
)
TYPED_EVENTS = Counter(
    "papa_typed_events_total",
    "Accepted events that have a type, by it: view, click, cart, purchase, like, dislike, skip.",
    ["type"],
)
IMPRESSIONS = Counter(
    "papa_impressions_total",
    "Generations and recommendations that were shown, by what became of the impression: kept, unsampled, limited (the "
    "tenant's rate), dropped (storage is slow), failed.",
    ["source", "outcome"],
)
EXPERIMENT_SHOWN = Counter(
    "papa_experiment_shown_total", "Items that users of an arm were shown.", ["experiment", "arm"]
)
EXPERIMENT_EVENTS = Counter(
    "papa_experiment_events_total",
    "Accepted events of users of an arm about what they were shown, by measure: click, like, purchase.",
    ["experiment", "arm", "measure"],
)
EXPERIMENT_RATE = Gauge(
    "papa_experiment_rate",
    "Events per item shown in an arm, over all tenants: the estimate, and both ends of its 95 % interval over users.",
    ["experiment", "arm", "measure", "bound"],
    multiprocess_mode="livemostrecent",
)
CATALOGUE_ITEMS = Counter(
    "papa_catalogue_items_total",
    "Items of catalogues by outcome: added, replaced, unchanged, deleted, or the reason of the refusal.",
    ["outcome"],
)
RECOMMENDATIONS = Counter(
    "papa_recommendations_total",
    "Recommendations by what they are based on (taste, backbone), or the reason of the failure.",
    ["outcome"],
)
RECOMMENDED_ITEMS = Counter(
    "papa_recommended_items_total",
    "Recommended items by why they were chosen: near_drawn, near_liked, explores.",
    ["reason"],
)
RANKINGS = Counter("papa_rankings_total", "Calls of Rank: ranked, or the reason of the failure.", ["outcome"])
RANKED_ITEMS = Counter("papa_ranked_items_total", "Items and pictures that Rank has ordered.")
FEEDBACK_BACKLOG = Gauge(
    "papa_feedback_backlog_events",
    "Accepted events that no revision has applied yet, over owned partitions.",
    multiprocess_mode="livesum",
)
FEEDBACK_OLDEST_AGE = Gauge(
    "papa_feedback_oldest_age_seconds", "Age of the oldest unapplied event.", multiprocess_mode="livemax"
)
FEEDBACK_DEAD_LETTERS = Counter("papa_feedback_dead_letters_total", "Events buried, by reason.", ["reason"])

QUOTA_EFFECTS = Counter(
    "papa_quota_effects_total",
    "What the quotas of single users removed or refused, by quota: revisions, items, event_ids, pending_events.",
    ["quota", "effect"],
)

GENERATIONS = Counter(
    "papa_generations_total", "Generations by outcome: done, cancelled, or the reason of the failure.", ["outcome"]
)
GENERATED_ITEMS = Counter("papa_generated_items_total", "Finished items by the weights that made them.", ["served_by"])
EXPLORING_ITEMS = Counter(
    "papa_exploring_items_total", "Finished items that the backbone made for users who have an adapter."
)
DRAWS = Counter(
    "papa_draws_total", "Samples drawn for generations, by what became of them: accepted, rejected.", ["outcome"]
)
ACCEPTANCE = Histogram(
    "papa_acceptance_ratio",
    "Of each generation whose draws a taste head judged: accepted draws ÷ draws.",
    buckets=SHARE_BUCKETS,
)
GENERATION_STAGE_SECONDS = Histogram(
    "papa_generation_stage_duration_seconds",
    "Time of a generation in each stage: queued, adapter_load, denoising, encoding.",
    ["stage"],
    buckets=RPC_SECONDS_BUCKETS,
)
ENGINES_RUNNING = Gauge("papa_engines_running", "Engines that take generations.", multiprocess_mode="livesum")
ENGINE_STEP_SECONDS = Histogram(
    "papa_engine_step_duration_seconds", "One denoising step of one batch.", buckets=RPC_SECONDS_BUCKETS
)
ENGINE_STEP_ROWS = Histogram("papa_engine_step_rows", "Rows of one denoising step.", buckets=ROWS_BUCKETS)
ENGINE_STEP_USERS = Histogram(
    "papa_engine_step_users", "Distinct adapters in one denoising step.", buckets=ROWS_BUCKETS
)
ENGINE_QUEUED_ROWS = Gauge(
    "papa_engine_queued_rows", "Rows waiting for the running batch.", multiprocess_mode="livesum"
)
ENGINE_RUNNING_ROWS = Gauge("papa_engine_running_rows", "Rows being denoised.", multiprocess_mode="livesum")
ENGINE_STEP_STARTED = Gauge(
    "papa_engine_step_started_timestamp_seconds",
    "Unix time at which the step under way has begun, by process; 0 between steps.",
    multiprocess_mode="liveall",
)
ENGINE_SLOTS_USED = Gauge("papa_engine_slots_used", "Adapters resident on the device.", multiprocess_mode="livesum")
ADAPTER_LOOKUPS = Counter("papa_adapter_lookups_total", "Where an adapter was found: device, host or store.", ["tier"])
ADAPTER_LOAD_SECONDS = Histogram(
    "papa_adapter_load_duration_seconds",
    "Fetching and checking one adapter from the store.",
    buckets=RPC_SECONDS_BUCKETS,
)
ADAPTER_REFUSED = Counter("papa_adapter_refused_total", "Stored revisions that were not served, by reason.", ["reason"])

UPDATES = Counter(
    "papa_updates_total",
    "Updates by outcome: committed, refused (by the gate), failed, fenced, conflict, behind.",
    ["outcome"],
)
UPDATE_SECONDS = Histogram("papa_update_duration_seconds", "Training of one update.", buckets=LOOP_SECONDS_BUCKETS)
UPDATE_LABELS = Histogram("papa_update_labels", "Labels that one update consumed.", buckets=ROWS_BUCKETS)
UPDATE_LOSS = Histogram(
    "papa_update_loss", "Preference loss at the end of an update.", buckets=(0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
)
GATE_REFUSALS = Counter("papa_gate_refusals_total", "Updates that the promotion gate refused, by reason.", ["reason"])
FEEDBACK_TO_COMMIT_SECONDS = Histogram(
    "papa_feedback_to_commit_seconds",
    "From the acceptance of an event to the commit of the revision that applied it.",
    buckets=LOOP_SECONDS_BUCKETS,
)
FEEDBACK_TO_SERVED_SECONDS = Histogram(
    "papa_feedback_to_served_seconds",
    "From the acceptance of a revision's last event to the first generation that used it.",
    buckets=LOOP_SECONDS_BUCKETS,
)
REVISIONS = Counter(
    "papa_revisions_total",
    "Moves of users' pointers by cause: trained, imported, rolled_back or reset.",
    ["cause"],
)
REVISION_NUMBER = Histogram(
    "papa_revision_number", "Of each trained revision: which of its user's it is.", buckets=REVISIONS_BUCKETS
)
REVISION_BYTES = Counter("papa_revision_written_bytes_total", "Bytes of the files of trained revisions.")
SERVED_REVISION_AGE = Histogram(
    "papa_served_revision_age_seconds",
    "Of each generation with an adapter: time since that revision was made.",
    buckets=AGE_SECONDS_BUCKETS,
)
PARTITIONS_OWNED = Gauge(
    "papa_partitions_owned", "Partitions whose lease this trainer holds.", multiprocess_mode="livesum"
)
TRAINERS_DESIRED = Gauge(
    "papa_trainers_desired", "Trainers that there should be, by the age of the backlog.", multiprocess_mode="livemax"
)
TRAINERS_RUNNING = Gauge(
    "papa_trainers_running", "Of those, trainers that have answered when last asked.", multiprocess_mode="livemax"
)

REDIS_MEMORY_USED = Gauge(
    "papa_redis_memory_used_bytes", "Memory used by the fullest primary of Redis.", multiprocess_mode="livemax"
)
REDIS_MEMORY_LIMIT = Gauge(
    "papa_redis_memory_limit_bytes",
    "Memory that this primary may use: maxmemory, or what its machine has.",
    multiprocess_mode="livemax",
)
REDIS_PERSISTENCE_FAILING = Gauge(
    "papa_redis_persistence_failing",
    "1 while a primary keeps no append-only file or could not write to it.",
    multiprocess_mode="livemax",
)

"""The engine dashboard: how generations proceed, and how busy the engines are."""

from board import Board, Form, Panel, Query, buckets, of, quantile, quantiles, rate

BOARD = Board(
    "engine",
    "Serving engine",
    "Stages of a generation, batches, adapters and caches.",
    {
        "Generations": [
            Panel(
                "Outcomes",
                "Generations per second by how they ended.",
                "cps",
                [Query(rate("papa_generations_total", "outcome"), "{{outcome}}")],
                Form.STACK,
            ),
            Panel(
                "Engines",
                "Engines that run their loop; fewer than replicas means that one has ended or is starting.",
                "short",
                [Query(f"sum({of('papa_engines_running')})", "running")],
            ),
            Panel(
                "Stages, p95",
                "Waiting, loading the adapter, denoising, encoding.",
                "s",
                [Query(quantile(0.95, "papa_generation_stage_duration_seconds", "stage"), "{{stage}}")],
            ),
            Panel(
                "Items by weights",
                "Items per second that an adapter or the backbone made.",
                "cps",
                [Query(rate("papa_generated_items_total", "served_by"), "{{served_by}}")],
                Form.STACK,
            ),
            Panel(
                "Draws",
                "Samples per second that became items, and that a taste head rejected; items that explore.",
                "cps",
                [
                    Query(rate("papa_draws_total", "outcome"), "{{outcome}}"),
                    Query(rate("papa_exploring_items_total"), "exploring"),
                ],
            ),
            Panel(
                "Acceptance",
                "Share of draws that a taste head accepted, by generation; low where adapters lag behind.",
                "percentunit",
                quantiles("papa_acceptance_ratio"),
            ),
        ],
        "Steps": [
            Panel(
                "Step time",
                "One denoising step of one batch.",
                "s",
                quantiles("papa_engine_step_duration_seconds"),
            ),
            Panel(
                "Rows of a step",
                "How well the batches are filled.",
                "short",
                buckets("papa_engine_step_rows"),
                Form.HEAT,
            ),
            Panel(
                "Adapters of a step",
                "Distinct users' adapters in one batch.",
                "short",
                buckets("papa_engine_step_users"),
                Form.HEAT,
            ),
            Panel(
                "Row-steps",
                "Denoising steps times rows, per second: the work that is done.",
                "cps",
                [Query(rate("papa_engine_step_rows_sum"), "row-steps")],
            ),
            Panel(
                "Busy",
                "Seconds of denoising per second, over all engines; one engine gives at most 1.",
                "percentunit",
                [Query(rate("papa_engine_step_duration_seconds_sum"), "engines")],
            ),
            Panel(
                "Queue",
                "Rows waiting and running.",
                "short",
                [
                    Query(f"sum({of('papa_engine_queued_rows')})", "waiting"),
                    Query(f"sum({of('papa_engine_running_rows')})", "running"),
                ],
            ),
        ],
        "Adapters": [
            Panel(
                "Where adapters were found",
                "Share of the look-ups by tier; those in the store cost a read.",
                "percentunit",
                [Query(of("papa:adapter_lookups:ratio_rate5m"), "{{tier}}")],
                at_most=1,
            ),
            Panel(
                "Load time",
                "Fetching and checking one adapter from the store.",
                "s",
                quantiles("papa_adapter_load_duration_seconds"),
            ),
            Panel(
                "Slots used",
                "Adapters resident on the devices.",
                "short",
                [Query(f"sum({of('papa_engine_slots_used')})", "slots")],
            ),
            Panel(
                "Refused adapters",
                "Stored revisions that were not served; there should be none.",
                "cps",
                [Query(rate("papa_adapter_refused_total", "reason"), "{{reason}}")],
                eventful=True,
            ),
        ],
    },
)

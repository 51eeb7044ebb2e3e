"""The queues dashboard: calls, events and commits that wait, are refused or end as dead letters."""

from board import Board, Form, Panel, Query, of, quantiles, rate

BOARD = Board(
    "queues",
    "Redis and queues",
    "Feedback on its way, and the Redis that holds it.",
    {
        "Feedback": [
            Panel(
                "Events by outcome",
                "Accepted, duplicate, or the reason of the refusal, per second.",
                "cps",
                [Query(rate("papa_feedback_events_total", "outcome"), "{{outcome}}")],
                Form.STACK,
            ),
            Panel(
                "Items of catalogues by outcome",
                "Added, replaced, unchanged, deleted, or the reason of the refusal, per second.",
                "cps",
                [Query(rate("papa_catalogue_items_total", "outcome"), "{{outcome}}")],
                Form.STACK,
                eventful=True,
            ),
            Panel(
                "Recommendations by what they are based on",
                "Taste, backbone (new users), or the reason of the failure, per second.",
                "cps",
                [
                    Query(rate("papa_recommendations_total", "outcome"), "{{outcome}}"),
                    Query(rate("papa_rankings_total", "outcome"), "Rank: {{outcome}}"),
                ],
                Form.STACK,
                eventful=True,
            ),
            Panel(
                "Recommended items by reason",
                "Near what the model draws, near what was liked, or explores, per second; and what Rank ordered.",
                "cps",
                [
                    Query(rate("papa_recommended_items_total", "reason"), "{{reason}}"),
                    Query(rate("papa_ranked_items_total"), "ranked"),
                ],
                Form.STACK,
                eventful=True,
            ),
            Panel(
                "Backlog",
                "Accepted events that no revision has applied.",
                "short",
                [Query(f"sum by (instance) ({of('papa_feedback_backlog_events')})", "{{instance}}")],
                Form.STACK,
            ),
            Panel(
                "Oldest event",
                "Age of the oldest unapplied event; above 300 s an alert fires.",
                "s",
                [Query(f"max({of('papa_feedback_oldest_age_seconds')})", "age")],
            ),
            Panel(
                "Dead letters",
                "Events buried per second, by reason.",
                "cps",
                [Query(rate("papa_feedback_dead_letters_total", "reason"), "{{reason}}")],
                eventful=True,
            ),
            Panel(
                "Quotas of users",
                "Old revisions, items and event ids that went, and new events that were refused, per second.",
                "cps",
                [Query(rate("papa_quota_effects_total", "quota, effect"), "{{quota}} {{effect}}")],
                eventful=True,
            ),
            Panel(
                "Like to revision",
                "From the acceptance of an event to its commit.",
                "s",
                quantiles("papa_feedback_to_commit_seconds"),
            ),
            Panel(
                "In and out",
                "Events accepted and events committed, per second.",
                "cps",
                [
                    Query(rate("papa_feedback_events_total", where='outcome="accepted"'), "accepted"),
                    Query(rate("papa_update_labels_sum"), "committed"),
                ],
            ),
        ],
        "Redis as the gateways see it": [
            Panel(
                "Redis memory",
                "Used and allowed; at the limit likes are refused, nothing is evicted. Above 85 % an alert fires.",
                "bytes",
                [
                    Query(f"max({of('papa_redis_memory_used_bytes')})", "used"),
                    Query(f"max({of('papa_redis_memory_limit_bytes')})", "limit"),
                ],
            ),
            Panel(
                "Append-only file",
                "1 while Redis has none or cannot write it.",
                "short",
                [Query(f"max({of('papa_redis_persistence_failing')})", "failing")],
                at_most=1,
            ),
        ],
        "Redis server (redis_exporter)": [
            Panel(
                "Memory",
                "Used and allowed; at the limit writes are refused, nothing is evicted.",
                "bytes",
                [Query(of("redis_memory_used_bytes"), "used"), Query(of("redis_memory_max_bytes"), "limit")],
                source="redis_exporter",
            ),
            Panel(
                "Commands",
                "Per second.",
                "cps",
                [Query(f"rate({of('redis_commands_processed_total')}[$__rate_interval])", "commands")],
                source="redis_exporter",
            ),
            Panel(
                "Persistence",
                "1 while the append-only file is on and its last write went well.",
                "short",
                [Query(of("redis_aof_enabled"), "enabled"), Query(of("redis_aof_last_write_status"), "last write")],
                source="redis_exporter",
                at_most=1,
            ),
        ],
    },
)

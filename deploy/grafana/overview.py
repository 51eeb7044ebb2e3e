"""The golden signals and the time of the loop, on one screen."""

from board import Board, Form, Panel, Query, buckets, of, quantile, quantiles, rate, shares

GENERATE = 'method=~".*Generate"'

BOARD = Board(
    "overview",
    "Overview",
    "Is the service well? Traffic, errors, latency and saturation, and the time from a like to what it changes.",
    {
        "Now": [
            Panel(
                "Generated items",
                "Finished items per second.",
                "cps",
                [Query(rate("papa_generated_items_total"))],
                Form.NUMBER,
                6,
            ),
            Panel(
                "Likes and dislikes",
                "Accepted labels per second.",
                "cps",
                [Query(rate("papa_feedback_labels_total"))],
                Form.NUMBER,
                6,
            ),
            Panel(
                "Like to served, p95",
                "From a revision's last event to the first generation that used it.",
                "s",
                [Query(of("papa:feedback_to_served_seconds:p95_rate15m"))],
                Form.NUMBER,
                6,
            ),
            Panel(
                "Oldest unlearnt event",
                "Age of the oldest event that no revision has applied.",
                "s",
                [Query(f"max({of('papa_feedback_oldest_age_seconds')})")],
                Form.NUMBER,
                6,
            ),
        ],
        "Objectives": [
            Panel(
                "Generations that fail",
                "Share of the calls that end with an error of the service; the objective allows 0.5 %.",
                "percentunit",
                shares("papa:generate_errors"),
                eventful=True,
            ),
            Panel(
                "Generations that are slow",
                "Share of the calls that take more than ten seconds; the objective allows 5 %.",
                "percentunit",
                shares("papa:generate_slow"),
            ),
            Panel(
                "Likes that take effect late",
                "Share of the revisions first served more than 30 s after their last like; the objective allows 5 %.",
                "percentunit",
                shares("papa:loop_slow"),
            ),
        ],
        "Traffic and errors": [
            Panel(
                "Calls",
                "Calls that ended, per second, by method.",
                "reqps",
                [Query(rate("papa_rpc_handled_total", "method"), "{{method}}")],
                Form.STACK,
            ),
            Panel(
                "Codes",
                "Calls that did not end with OK, per second.",
                "reqps",
                [Query(rate("papa_rpc_handled_total", "method, code", 'code!="OK"'), "{{method}} {{code}}")],
                eventful=True,
            ),
            Panel(
                "Share of failed calls",
                "Errors of the service; above 2 % for ten minutes an alert fires.",
                "percentunit",
                [Query(of("papa:rpc_errors:ratio_rate5m"), "{{method}}")],
                at_most=1,
                eventful=True,
            ),
        ],
        "Latency": [
            Panel(
                "Generate",
                "From the arrival of a Generate call to its end.",
                "s",
                quantiles("papa_rpc_duration_seconds", GENERATE),
            ),
            Panel(
                "Other calls, p95",
                "By method; streams last as long as their callers want.",
                "s",
                [
                    Query(
                        quantile(0.95, "papa_rpc_duration_seconds", "method", 'method!~".*(Generate|Stream|Watch).*"'),
                        "{{method}}",
                    )
                ],
            ),
            Panel(
                "Like to served",
                "From the last event of a revision to the first generation that used it.",
                "s",
                buckets("papa_feedback_to_served_seconds"),
                Form.HEAT,
            ),
        ],
        "Saturation": [
            Panel(
                "Calls in progress",
                "Calls being handled, by method.",
                "short",
                [Query(f"sum by (method) ({of('papa_rpc_in_flight')})", "{{method}}")],
                Form.STACK,
            ),
            Panel(
                "Rows in the engines",
                "Rows waiting to be admitted to the batch, and rows being denoised.",
                "short",
                [
                    Query(f"sum({of('papa_engine_queued_rows')})", "waiting"),
                    Query(f"sum({of('papa_engine_running_rows')})", "running"),
                ],
            ),
            Panel(
                "Backlog",
                "Accepted events that no revision has applied.",
                "short",
                [Query(f"sum({of('papa_feedback_backlog_events')})", "events")],
            ),
            Panel(
                "Certificate",
                "Time until the first of the gateways' certificates expires; below 14 days an alert fires.",
                "s",
                [Query(f"min({of('papa_gateway_certificate_expiry_timestamp_seconds')} > 0) - time()", "left")],
                eventful=True,
            ),
        ],
    },
)

"""The capacity dashboard: how much of each resource is used, and what one unit of it yields."""

from board import Board, Form, Panel, Query, of, rate

BOARD = Board(
    "capacity",
    "Capacity",
    "Work per engine and trainer, and the nodes below them.",
    {
        "Engines": [
            Panel(
                "Busy share of each engine",
                "Seconds of denoising per second; near 1 another replica is needed.",
                "percentunit",
                [Query(rate("papa_engine_step_duration_seconds_sum", "instance"), "{{instance}}")],
            ),
            Panel(
                "Items per busy second",
                "What a second of denoising yields; it falls when batches are small.",
                "short",
                [
                    Query(
                        f"{rate('papa_generated_items_total')} / {rate('papa_engine_step_duration_seconds_sum')}",
                        "items",
                    )
                ],
            ),
            Panel(
                "Mean rows of a step",
                "Against generator.max_rows.",
                "short",
                [Query(f"{rate('papa_engine_step_rows_sum')} / {rate('papa_engine_step_rows_count')}", "rows")],
            ),
        ],
        "Trainers": [
            Panel(
                "Busy share of each trainer pod",
                "Seconds of training per second, over the trainers of the pod.",
                "percentunit",
                [Query(rate("papa_update_duration_seconds_sum", "instance"), "{{instance}}")],
            ),
            Panel(
                "Trainers",
                "Wanted by the age of the backlog, and there; far apart, machines are missing.",
                "short",
                [
                    Query(f"max({of('papa_trainers_desired')})", "wanted"),
                    Query(f"max({of('papa_trainers_running')})", "there"),
                ],
            ),
            Panel(
                "Labels per busy second",
                "What a second of training consumes.",
                "short",
                [Query(f"{rate('papa_update_labels_sum')} / {rate('papa_update_duration_seconds_sum')}", "labels")],
            ),
            Panel(
                "Builds",
                "Gateways by what they run; two lines are a rollout.",
                "short",
                [Query(f"count by (version, backbone) ({of('papa_build_info')})", "{{version}} {{backbone}}")],
                Form.STACK,
            ),
        ],
        "Nodes (Ray's exporter)": [
            Panel(
                "CPU",
                "Of each Ray pod's node.",
                "percent",
                [Query(of("ray_node_cpu_utilization"), "{{instance}}")],
                source="ray",
            ),
            Panel(
                "Memory",
                "Of each Ray pod's node.",
                "bytes",
                [Query(of("ray_node_mem_used"), "{{instance}}")],
                source="ray",
            ),
            Panel(
                "GPU",
                "Utilisation and memory of each GPU.",
                "percent",
                [
                    Query(of("ray_node_gpus_utilization"), "{{instance}} {{GpuIndex}}"),
                    Query(
                        f"100 * {of('ray_node_gram_used')}"
                        f" / ({of('ray_node_gram_used')} + {of('ray_node_gram_available')})",
                        "{{instance}} memory",
                    ),
                ],
                source="ray",
            ),
            Panel(
                "Ray nodes",
                "Alive, pending and failed.",
                "short",
                [
                    Query(f"sum({of('ray_cluster_active_nodes')})", "active"),
                    Query(f"sum({of('ray_cluster_pending_nodes')})", "pending"),
                    Query(f"sum({of('ray_cluster_failed_nodes')})", "failed"),
                ],
                source="ray",
            ),
            Panel(
                "Replicas",
                "Generator replicas that are healthy.",
                "short",
                [Query(f"sum by (deployment) ({of('ray_serve_deployment_replica_healthy')})", "{{deployment}}")],
                source="ray",
            ),
        ],
    },
)

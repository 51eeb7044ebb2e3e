"""Do users get what they like, and is it learnt in time and without damage?"""

from board import Board, Form, Panel, Query, buckets, of, quantiles, rate

BOARD = Board(
    "training",
    "Training and alignment",
    "The share of likes, updates, the gate, revisions, and the time from a like to its revision.",
    {
        "Alignment": [
            Panel(
                "Share of likes",
                "Likes divided by all labels; it rises when items meet tastes.",
                "percentunit",
                [
                    Query(
                        rate("papa_feedback_labels_total", where='label="like"')
                        + " / "
                        + rate("papa_feedback_labels_total"),
                        "now",
                    ),
                    Query(of("papa:feedback_likes:ratio_rate1h"), "last hour"),
                ],
                at_most=1,
            ),
            Panel(
                "Share of likes by experience",
                "Over an hour, by how many labels the users had given: users with more labels should like more.",
                "percentunit",
                [Query(of("papa:feedback_likes_by_cohort:ratio_rate1h"), "labels {{cohort}}")],
                at_most=1,
            ),
            Panel(
                "Experiments",
                "Events per item shown, by arm: the estimate and its 95 % interval over users.",
                "percentunit",
                [Query(of("papa_experiment_rate"), "{{experiment}} {{arm}} {{measure}} {{bound}}")],
                eventful=True,
            ),
            Panel(
                "Counted by experiments",
                "Items shown in an arm and events about them, per second; empty without experiments in the settings.",
                "cps",
                [
                    Query(rate("papa_experiment_shown_total", "experiment, arm"), "{{experiment}} {{arm}} shown"),
                    Query(
                        rate("papa_experiment_events_total", "experiment, arm, measure"),
                        "{{experiment}} {{arm}} {{measure}}",
                    ),
                ],
                eventful=True,
            ),
            Panel(
                "Typed events",
                "Events per second by what users did; empty while callers send labels alone.",
                "cps",
                [Query(rate("papa_typed_events_total", "type"), "{{type}}")],
                Form.STACK,
                eventful=True,
            ),
            Panel(
                "Impressions",
                "Generations and recommendations that were shown, per second, by what became of the record.",
                "cps",
                [Query(rate("papa_impressions_total", "source, outcome"), "{{source}} {{outcome}}")],
                Form.STACK,
            ),
            Panel(
                "Labels",
                "Likes and dislikes per second.",
                "cps",
                [Query(rate("papa_feedback_labels_total", "label"), "{{label}}")],
                Form.STACK,
            ),
        ],
        "Updates": [
            Panel(
                "Outcomes",
                "Updates per second: committed, refused by the gate, failed, fenced.",
                "cps",
                [Query(rate("papa_updates_total", "outcome"), "{{outcome}}")],
                Form.STACK,
            ),
            Panel("Time of an update", "Training alone.", "s", quantiles("papa_update_duration_seconds")),
            Panel(
                "Labels of an update", "What one update consumed.", "short", buckets("papa_update_labels"), Form.HEAT
            ),
            Panel(
                "Loss",
                "Preference loss at the end of an update; rising for long, it says that learning is unstable.",
                "short",
                quantiles("papa_update_loss"),
            ),
            Panel(
                "Refusals of the gate",
                "Updates that would have damaged an adapter, per second, by reason.",
                "cps",
                [Query(rate("papa_gate_refusals_total", "reason"), "{{reason}}")],
                eventful=True,
            ),
            Panel(
                "Share refused",
                "Of all updates of the last half hour; above 20 % an alert fires.",
                "percentunit",
                [Query(of("papa:updates_refused:ratio_rate30m"), "refused")],
                at_most=1,
                eventful=True,
            ),
        ],
        "Revisions": [
            Panel(
                "Moves of pointers",
                "Per second: revisions that were trained or imported, rollbacks and resets.",
                "cps",
                [Query(rate("papa_revisions_total", "cause"), "{{cause}}")],
                Form.STACK,
                6,
            ),
            Panel(
                "Which revision of its user",
                "Of the revisions that were trained: the first, the second, and so on.",
                "short",
                buckets("papa_revision_number"),
                Form.HEAT,
                6,
            ),
            Panel(
                "Age of what serves",
                "Of the generations with an adapter: time since its revision was made.",
                "s",
                quantiles("papa_served_revision_age_seconds"),
                width=6,
            ),
            Panel(
                "Written",
                "Bytes of revisions per second, which stay in the store.",
                "Bps",
                [Query(rate("papa_revision_written_bytes_total"), "bytes")],
                width=6,
            ),
        ],
        "Loop": [
            Panel(
                "Like to revision",
                "From the acceptance of an event to the commit that applied it.",
                "s",
                quantiles("papa_feedback_to_commit_seconds"),
            ),
            Panel(
                "Like to served",
                "From a revision's last event to the first generation that used it.",
                "s",
                quantiles("papa_feedback_to_served_seconds"),
            ),
            Panel(
                "Partitions owned",
                "By trainers; the sum is feedback.partitions, except while trainers come and go.",
                "short",
                [Query(f"sum by (instance) ({of('papa_partitions_owned')})", "{{instance}}")],
                Form.STACK,
            ),
        ],
    },
)

"""Cases of the burn-rate alerts; see alert_cases.py. Long ones have a sample every half hour, to be quick."""

from __future__ import annotations

from tests.deploy.alert_cases import GENERATE, Case, handled


def _durations(fast: str, slow: str) -> dict[str, str]:
    """Of generations, `fast` of which take up to ten seconds."""
    whole = str(int(fast) + int(slow))
    return {
        f'papa_rpc_duration_seconds_bucket{{{GENERATE},le="10.0"}}': f"0+{fast}x70",
        f"papa_rpc_duration_seconds_count{{{GENERATE}}}": f"0+{whole}x70",
    }


def _loop(served: str, served_late: str, learnt: str, learnt_late: str) -> dict[str, str]:
    """Of revisions: served and committed within half a minute, or later."""
    return {
        'papa_feedback_to_served_seconds_bucket{le="30.0"}': f"0+{served}x70",
        "papa_feedback_to_served_seconds_count": f"0+{int(served) + int(served_late)}x70",
        'papa_feedback_to_commit_seconds_bucket{le="30.0"}': f"0+{learnt}x70",
        "papa_feedback_to_commit_seconds_count": f"0+{int(learnt) + int(learnt_late)}x70",
    }


OBJECTIVE_CASES = (
    # Every fourth generation fails for ten minutes: the short and the long window agree.
    Case(
        "PapaGenerateErrorBudget",
        True,
        "70m",
        {
            handled("OK"): "0+60x59 3540+45x20",
            handled("UNAVAILABLE"): "0x55 0+60x30",
        },
        severities=("critical",),
        other={handled("OK"): "0+60x90"},
    ),
    # Low traffic, everything fails, while another release is soaked with calls that end well.
    Case(
        "PapaGenerateErrorBudget",
        True,
        "30m",
        {handled("UNAVAILABLE"): "0+1x60"},
        severities=("critical",),
        other={handled("OK"): "0+6000x60"},
    ),
    # It has failed, and has been well for half an hour.
    Case(
        "PapaGenerateErrorBudget",
        False,
        "60m",
        {
            handled("OK"): "0+60x90",
            handled("UNAVAILABLE"): "0+10x15 150x90",
        },
    ),
    # Two failures of a quiet night.
    Case("PapaGenerateErrorBudget", False, "30m", {handled("UNAVAILABLE"): "0+1x2 2x90"}),
    # One call in fifty for a day: four times the budget, too slow for a page.
    Case(
        "PapaGenerateErrorBudget",
        True,
        "26h",
        {
            handled("OK"): "0+490x70",
            handled("INTERNAL"): "0+10x70",
        },
        severities=("warning",),
        interval="30m",
    ),
    Case(
        "PapaGenerateErrorBudget",
        False,
        "26h",
        {
            handled("OK"): "0+4990x70",
            handled("INTERNAL"): "0+10x70",
        },
        interval="30m",
    ),
    Case("PapaGenerateLatencyBudget", True, "20m", _durations("10", "90"), severities=("critical",)),
    Case("PapaGenerateLatencyBudget", True, "26h", _durations("80", "20"), severities=("warning",), interval="30m"),
    Case("PapaGenerateLatencyBudget", False, "26h", _durations("98", "2"), interval="30m"),
    Case("PapaLoopBudget", True, "20m", _loop("10", "90", "10", "90"), severities=("critical",)),
    # Users who come back late see late what was learnt in time: no reason to wake anybody.
    Case("PapaLoopBudget", False, "20m", _loop("10", "90", "99", "1")),
    Case("PapaLoopBudget", True, "26h", _loop("80", "20", "80", "20"), severities=("warning",), interval="30m"),
    Case("PapaLoopBudget", False, "26h", _loop("98", "2", "98", "2"), interval="30m"),
)

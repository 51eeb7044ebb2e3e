"""A dashboard as data, and its Grafana JSON through the foundation SDK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
RELEASE = 'namespace="$namespace",release="$release"'
"""Matchers of the chosen release; every selector of every panel has them."""
WIDTH = 24
HEIGHT = 8


class Form(Enum):
    """How a panel shows its series."""

    LINES = "lines"
    STACK = "stack"
    NUMBER = "number"
    HEAT = "heat"


@dataclass(frozen=True)
class Query:
    """One expression; `legend` names its series, {{label}} stands for a label."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel; `unit` is one of Grafana's.

    `source` is "papa" for what the service counts itself, and else the exporter that must run for it to have data.
    `eventful` panels show what may never happen, and are empty as long as it has not.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    form: Form = Form.LINES
    width: int = 8
    source: str = "papa"
    eventful: bool = False
    at_most: float | None = None


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels by the rows' titles."""

    name: str
    title: str
    description: str
    rows: dict[str, Sequence[Panel]]

    @property
    def panels(self) -> list[Panel]:
        """All of them, in order."""
        return [panel for panels in self.rows.values() for panel in panels]

    @property
    def queries(self) -> list[Query]:
        """The queries of all panels."""
        return [query for panel in self.panels for query in panel.queries]


def as_json(board: Board) -> str:
    """Renders a board as the JSON that Grafana imports."""
    built = dashboard.Dashboard(f"PAPA / {board.title}").uid(f"papa-{board.name}").description(board.description)
    built = built.tags(["papa"]).refresh("30s").time("now-3h", "now").timezone("browser").readonly()
    built = built.tooltip(DashboardCursorSync.CROSSHAIR)
    built = built.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    built = built.with_variable(_variable("namespace", "Namespace", "papa_build_info"))
    built = built.with_variable(_variable("release", "Release", 'papa_build_info{namespace="$namespace"}'))
    for title, panels in board.rows.items():
        built = built.with_row(dashboard.Row(title))
        for panel in panels:
            built = built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _variable(name: str, label: str, series: str) -> dashboard.QueryVariable:
    """One value at a time: the panels add up over the release that is chosen, never over several."""
    built = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(f"label_values({series}, {name})")
    return built.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel | heatmap.Panel:
    built = _of_form(panel).title(panel.title).description(panel.description).datasource(SOURCE)
    built = built.span(panel.width).height(HEIGHT)
    for number, query in enumerate(panel.queries):
        built = built.with_target(_target(query, chr(ord("A") + number), panel.form))
    return built


def _of_form(panel: Panel) -> timeseries.Panel | stat.Panel | heatmap.Panel:
    match panel.form:
        case Form.NUMBER:
            return stat.Panel().unit(panel.unit).graph_mode(BigValueGraphMode.AREA).no_value("none")
        case Form.HEAT:
            return heatmap.Panel().unit(panel.unit).calculate(False)
        case Form.LINES | Form.STACK:
            return _lines(panel)


def _lines(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
    built = timeseries.Panel().unit(panel.unit).min(0).legend(legend.show_legend(True)).tooltip(tooltip)
    if panel.at_most is not None:
        built = built.max(panel.at_most)
    if panel.form is Form.STACK:
        built = built.stacking(common.StackingConfig().mode("normal")).fill_opacity(40)
    return built


def _target(query: Query, reference: str, form: Form) -> prometheus.Dataquery:
    built = prometheus.Dataquery().expr(query.expression).legend_format(query.legend or "__auto").ref_id(reference)
    if form is Form.HEAT:
        built = built.format(PromQueryFormat.HEATMAP).legend_format("{{le}}")
    return built.range()


def of(metric: str, where: str = "") -> str:
    """The series of a metric or recording that belong to the chosen release."""
    return f"{metric}{{{RELEASE}{where and ','}{where}}}"


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Events per second of a counter, over the window that Grafana finds fit."""
    inner = f"rate({of(metric, where)}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram."""
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share:g}, {rate(f'{metric}_bucket', labels, where)})"


def quantiles(metric: str, where: str = "") -> list[Query]:
    """Median, 95th and 99th percentile, as three series."""
    return [Query(quantile(share, metric, where=where), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


def buckets(metric: str, where: str = "") -> list[Query]:
    """A histogram over time."""
    return [Query(rate(f"{metric}_bucket", "le", where))]


def shares(recording: str) -> list[Query]:
    """The ratio of an objective over the windows that its alerts use."""
    windows = {"1h": "last hour", "6h": "six hours", "3d": "three days"}
    return [Query(of(f"{recording}:ratio_rate{window}"), legend) for window, legend in windows.items()]

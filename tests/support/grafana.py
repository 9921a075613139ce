"""The fields of a Grafana dashboard that deploy/grafana.json may use, as pydantic models; others are errors.

Names and types as in Grafana's dashboard model (schema version 39), in which dashboards are imported.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, Field(strict=True, min_length=1)]
Cells = Annotated[int, Field(ge=0, le=24, strict=True)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DataSource(Strict):
    type: Literal["prometheus"]
    uid: Literal["${datasource}"]  # the one that is chosen at the top


class Target(Strict):
    refId: Annotated[str, StringConstraints(pattern=r"^[A-Z]$")]
    datasource: DataSource
    expr: Text
    legendFormat: str


class Place(Strict):
    h: Cells
    w: Cells
    x: Cells
    y: Annotated[int, Field(ge=0, strict=True)]


class Stacking(Strict):
    mode: Literal["none", "normal"]
    group: Text


class Custom(Strict):
    drawStyle: Literal["line"]
    fillOpacity: Annotated[int, Field(ge=0, le=100)]
    showPoints: Literal["never"]
    stacking: Stacking


class Defaults(Strict):
    unit: Literal["short", "percentunit", "s"]
    decimals: int | None = None
    min: float | None = None
    max: float | None = None
    custom: Custom | None = None


class FieldConfig(Strict):
    defaults: Defaults
    overrides: list[Any] = Field(max_length=0)


class Panel(Strict):
    id: Annotated[int, Field(gt=0)]
    type: Literal["stat", "timeseries"]
    title: Text
    description: Text
    datasource: DataSource
    gridPos: Place
    fieldConfig: FieldConfig
    targets: Annotated[list[Target], Field(min_length=1)]
    options: dict[str, Any]


class Query(Strict):
    query: Text
    refId: Text


class Variable(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^\w+$")]
    label: Text
    type: Literal["datasource", "query"]
    query: Literal["prometheus"] | Query
    datasource: DataSource | None = None
    refresh: Literal[1, 2]
    sort: int = 0
    multi: bool
    includeAll: bool
    allValue: str | None = None
    current: dict[str, Any]
    options: list[Any] = Field(max_length=0)
    regex: str
    hide: Literal[0]
    skipUrlSync: bool


class Variables(Strict):
    all: list[Variable] = Field(alias="list")


class Annotations(Strict):
    all: list[Any] = Field(alias="list", max_length=0)


class Range(Strict):
    from_: Text = Field(alias="from")
    to: Text


class Dashboard(Strict):
    uid: Annotated[str, StringConstraints(pattern=r"^[\w-]{1,40}$")]
    title: Text
    description: Text
    tags: list[Text]
    editable: bool
    graphTooltip: Literal[0, 1, 2]
    schemaVersion: Literal[39]
    version: int
    refresh: Text
    timezone: str
    time: Range
    timepicker: dict[str, Any]
    links: list[Any]
    annotations: Annotations
    templating: Variables
    panels: list[Panel]

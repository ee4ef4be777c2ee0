"""What a dashboard is made of: selectors and queries, colours, panels, their places on the page.

Invariants: every selector is filtered by $job and $instance, and every panel has title, description and unit, since a
panel cannot be made without them. Knows Grafana's JSON and nothing of what the sidecar does.
"""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24

NODES = 'job=~"$job",instance=~"$instance"'
RATE = "$__rate_interval"
RANGE = "$__range"


# Metrics that are not the sidecar's own, and are named in full.
FOREIGN = ("up", "ALERTS", "process_", "scrape_")


def of(name, *matchers):
    """A selector; the sidecar's metrics go by their names without the prefix."""
    full = name if name.startswith(FOREIGN) else f"pin_sidecar_{name}"
    return f"{full}{{{','.join((NODES, *matchers))}}}"


def rate(name, *matchers, window=RATE):
    return f"rate({of(name, *matchers)}[{window}])"


def total_rate(name, *matchers, by=None, window=RATE):
    return f"sum{f' by ({by})' if by else ''} ({rate(name, *matchers, window=window)})"


def increase(name, *matchers, by=None, window=RANGE):
    return f"sum{f' by ({by})' if by else ''} (increase({of(name, *matchers)}[{window}]))"


def quantile(q, histogram, *matchers):
    """Nothing where nothing was observed, rather than NaN."""
    buckets = total_rate(f"{histogram}_bucket", *matchers, by="le")
    return f"histogram_quantile({q}, {buckets}) and {total_rate(f'{histogram}_count', *matchers)} > 0"


def spread(expression):
    """Of one value a node: the worst and the one in the middle."""
    return query(f"max({expression})", "worst node"), query(f"quantile(0.5, {expression})", "node in the middle")


def query(expr, legend="", instant=False, form="time_series"):
    return {
        "expr": expr,
        "legendFormat": legend or "__auto",
        "format": form,
        "instant": instant,
        "range": not instant,
    }


def now(expr, legend=""):
    return query(expr, legend, instant=True)


def column(expr):
    return query(expr, instant=True, form="table")


# --- colours, words


def steps(*pairs):
    """Thresholds: a colour from the start, then (value, colour) upwards."""
    first, *others = pairs
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in others],
    }


NEUTRAL = steps("blue")
# The network's tiers.


def override(name, **properties):
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def coloured(**colors):
    fixed = {name.replace("_", " "): {"mode": "fixed", "fixedColor": color} for name, color in colors.items()}
    return [override(name, color=color) for name, color in fixed.items()]


# Reasons and types that never happened: in the tooltip, not among the names below the plot.
SILENT = {
    "matcher": {"id": "byValue", "options": {"op": "gte", "reducer": "allIsZero", "value": 0}},
    "properties": [{"id": "custom.hideFrom", "value": {"legend": True, "tooltip": False, "viz": False}}],
}


# --- panels


def panel(kind, number, title, description, unit, size, queries, **more):
    """How a description is broken into lines does not matter. `more`: defaults of the fields, overrides, options,
    transformations.
    """
    targets = [
        {"refId": chr(ord("A") + index), "datasource": DATASOURCE, **target} for index, target in enumerate(queries)
    ]
    width, height = size
    made = {
        "id": number,
        "type": kind,
        "title": title,
        "description": " ".join(description.split()),
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": unit, **more.pop("defaults", {})}, "overrides": more.pop("overrides", [])},
        "options": more.pop("options"),
        "targets": targets,
    }
    return made | more


def stat(number, title, description, unit, queries, thresholds=NEUTRAL, size=(4, 3), *, names=False, trend=False,
         **more):
    defaults = {"color": {"mode": "thresholds"}, "thresholds": thresholds, **more.pop("defaults", {})}
    options = {
        "colorMode": "value",
        "graphMode": "area" if trend else "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value_and_name" if names else "value",
    }
    return panel("stat", number, title, description, unit, size, queries, defaults=defaults, options=options, **more)


def lines(number, title, description, unit, queries, size=(8, 7), *, stacked=False, bars=False, log=False, limits=None,
          **more):
    custom = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 80 if bars else 25 if stacked else 8,
        "lineWidth": 0 if bars else 1,
        "showPoints": "never",
        "axisSoftMin": 0,
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
        "stacking": {"group": "A", "mode": "normal" if stacked or bars else "none"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }
    defaults = {"color": {"mode": "palette-classic"}, "custom": custom, "thresholds": limits or NEUTRAL}
    if not log:
        defaults["min"] = 0
    options = {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    overrides = [*more.pop("overrides", []), *([SILENT] if stacked or bars else [])]
    return panel("timeseries", number, title, description, unit, size, queries, defaults=defaults, options=options,
                 overrides=overrides, **more)


def heatmap(number, title, description, histogram, *matchers, size=(12, 8)):
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short"},
        "color": {
            "mode": "scheme", "scheme": "Blues", "scale": "exponential", "exponent": 0.5, "steps": 32, "reverse": True,
        },
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    }
    buckets = query(increase(f"{histogram}_bucket", *matchers, by="le", window=RATE), "{{le}}", form="heatmap")
    return panel("heatmap", number, title, description, "short", size, [buckets], options=options)


def timeline(number, title, description, queries, words, size):
    defaults = {
        "color": {"mode": "thresholds"},
        "custom": {"fillOpacity": 75, "lineWidth": 0},
        "mappings": words,
        "thresholds": NEUTRAL,
    }
    options = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "perPage": 10,
        "rowHeight": 0.85,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", number, title, description, "none", size, queries, defaults=defaults,
                 options=options)


def table(number, title, description, queries, size, names, *, hidden=(), overrides=(), sort=None, none="none"):
    """`names`: the fields to show, in this order, and their headings; `none`: what it says where there is no row."""
    transformations = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {
            "excludeByName": {name: True for name in ("Time", *hidden)},
            "indexByName": {name: index for index, name in enumerate(names)},
            "renameByName": names,
        }},
    ]
    defaults = {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False}, "noValue": none}
    options = {
        "cellHeight": "sm",
        "footer": {"show": False, "fields": "", "reducer": ["sum"]},
        "showHeader": True,
        "sortBy": [{"displayName": sort, "desc": False}] if sort else [],
    }
    return panel("table", number, title, description, "none", size, queries, defaults=defaults, options=options,
                 overrides=list(overrides), transformations=transformations)


def shares(number, title, description, queries, thresholds, size, none):
    """Bars from 0 to 100 %."""
    defaults = {"color": {"mode": "thresholds"}, "max": 1, "min": 0, "noValue": none, "thresholds": thresholds}
    options = {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
    }
    return panel("bargauge", number, title, description, "percentunit", size, queries, defaults=defaults,
                 options=options)


# --- the page


def laid_out(rows):
    """Panels from left to right, and below when a line is full."""
    y = 0
    for number, title, panels in rows:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": place(0, y, COLUMNS, 1),
            "panels": [],
        }
        x, y, height = 0, y + 1, 0
        for made in panels:
            width = made["gridPos"]["w"]
            if x + width > COLUMNS:
                x, y, height = 0, y + height, 0
            made["gridPos"] = place(x, y, width, made["gridPos"]["h"])
            x, height = x + width, max(height, made["gridPos"]["h"])
            yield made
        y += height


def place(x, y, w, h):
    return {"h": h, "w": w, "x": x, "y": y}


def variable(name, label, description, values, **more):
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": values,
        "query": {"query": values, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        **more,
    }


def moments(name, color, metric, title):
    """A mark at a moment that a metric tells as Unix time: exact however far apart the scrapes are."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": color,
        "expr": f"{of(metric)} * 1000 > 0",
        "step": "60s",
        "titleFormat": title,
        "textFormat": "{{instance}}",
        "useValueForTime": True,
    }

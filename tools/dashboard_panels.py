"""Panels as tools/draw-dashboard draws them: each kind of Grafana's that the dashboard has, as elements of an SVG.

Knows a panel's JSON and the series that were answered, and asks nobody. Invariant: what is drawn is what was answered;
where nothing was, the panel says so in its own words.
"""

import math
import time
from html import escape

INK, FAINT, RULE, CARD, PAGE = "#22262b", "#6b7280", "#e5e7eb", "#ffffff", "#f3f4f6"
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
COLORS = {
    "green": "#2e8b57", "red": "#d13b40", "dark-red": "#8f1d23", "orange": "#e07b18", "yellow": "#c9a400",
    "blue": "#2f6fb7", "light-blue": "#8ab8e6", "purple": "#7d4fb3", "text": "#4b5563", "transparent": "none",
}
PALETTE = ("#2f6fb7", "#e07b18", "#2e8b57", "#7d4fb3", "#d13b40", "#0f9aa8", "#b8860b", "#c2477f", "#6b7280", "#5f8f1f")
HEAT_STEPS = 10


# --- words for numbers


def scaled(value, base, units):
    size = abs(value)
    index = min(int(math.log(size, base)), len(units) - 1) if size >= 1 else 0
    return value / base**index, units[index]


def number(value, decimals=None):
    if decimals is None:
        size = abs(value)
        decimals = 0 if size >= 100 or value == round(value) else 1 if size >= 10 else 2 if size >= 0.1 else 3
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text and decimals > 1 else text


# Below so many seconds, in parts of so many, which are called so.
TIMES = ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h"))


def seconds(value, decimals):
    for limit, length, unit in TIMES:
        if abs(value) < limit:
            return f"{number(value / length, decimals)} {unit}" if value else "0 s"
    return f"{number(value / 86400, decimals)} d"


def spoken(value, unit, decimals=None):
    if unit == "s":
        return seconds(value, decimals)
    if unit == "percentunit":
        return f"{number(100 * value, decimals)} %"
    if unit in ("bytes", "Bps"):
        value, word = scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
        return f"{number(value, decimals)} {word}" + ("/s" if unit == "Bps" else "")
    if unit == "currencyUSD":
        return f"${number(value, 4 if decimals is None else decimals)}"
    if unit.startswith("suffix:"):
        return number(value, decimals) + unit.removeprefix("suffix:")
    word = {"cpm": "/min", "reqps": " req/s", "mps": " msg/s"}.get(unit, "")
    if abs(value) >= 10_000:
        value, scale = scaled(value, 1000, ("", " K", " M", " G"))
        word = scale + word
    return number(value, decimals) + word


# --- the panel's own wishes


class Wishes:
    """What a panel wants for a field: the defaults, and the overrides by name."""

    def __init__(self, panel, name=None):
        config = panel["fieldConfig"]
        self.values = {"unit": "none", **config["defaults"]}
        custom = dict(self.values.pop("custom", {}))
        for override in config["overrides"]:
            if override["matcher"]["options"] == name:
                for wish in override["properties"]:
                    key = wish["id"]
                    if key.startswith("custom."):
                        custom[key.removeprefix("custom.")] = wish["value"]
                    else:
                        self.values[key] = wish["value"]
        self.custom = custom

    def word(self, value):
        for mapping in self.values.get("mappings", []):
            known = mapping["options"].get(str(int(value)))
            if known:
                return known["text"]
        return spoken(value, self.values["unit"], self.values.get("decimals"))

    def color(self, value):
        fixed = self.fixed()
        if fixed:
            return fixed
        for mapping in self.values.get("mappings", []):
            known = mapping["options"].get(str(int(value)))
            if known:
                return COLORS[known["color"]]
        color = INK
        for step in self.values.get("thresholds", {}).get("steps", []):
            if step["value"] is None or value >= step["value"]:
                color = COLORS[step["color"]]
        return color

    def fixed(self):
        color = self.values.get("color", {})
        return COLORS[color["fixedColor"]] if color.get("mode") == "fixed" else None


# --- the pen


def text(x, y, words, size=11, color=FAINT, anchor="start", weight=400):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" fill="{color}" '
            f'text-anchor="{anchor}">{escape(str(words))}</text>')


def rect(x, y, w, h, fill, more=""):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}" {more}/>'


def clipped(words, width, size=11):
    """As much of it as fits; letters are some 0.55 of their size wide."""
    room = max(1, int(width / (size * 0.55)))
    return words if len(words) <= room else words[: room - 1] + "…"


def box(x, y, w, h):
    """A part of a path."""
    return f"M{x:.1f} {y:.1f}h{w:.1f}v{h:.1f}h-{w:.1f}Z"


def path(points):
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


class Frame:
    """Where a plot is, and what its edges mean."""

    def __init__(self, place, times, low, high, log=False):
        self.x, self.y, self.w, self.h = place
        self.start, self.end = times
        self.low, self.high, self.log = low, high, log

    def at(self, time_, value):
        return self.x_of(time_), self.y_of(value)

    def x_of(self, time_):
        return self.x + self.w * (time_ - self.start) / (self.end - self.start)

    def y_of(self, value):
        share = (self.scale(value) - self.scale(self.low)) / (self.scale(self.high) - self.scale(self.low))
        return self.y + self.h * (1 - min(1, max(0, share)))

    def scale(self, value):
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self):
        if self.log:
            return [10**power for power in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)]
        return [self.low + (self.high - self.low) * quarter / 4 for quarter in (0, 1, 2, 3, 4)]

    def drawn(self, unit):
        out = []
        for tick in self.ticks():
            y = self.y_of(tick)
            out.append(f'<path d="M{self.x:.1f} {y:.1f}h{self.w:.1f}" stroke="{RULE}"/>')
            out.append(text(self.x - 5, y + 3, spoken(tick, unit), 9, anchor="end"))
        return out + self.clock()

    def clock(self):
        minute = 60 * max(1, round((self.end - self.start) / 60 / max(2, self.w / 90)))
        first = math.ceil(self.start / minute) * minute
        hours = (time.strftime("%H:%M", time.gmtime(at)) for at in range(first, int(self.end), minute))
        return [text(self.x_of(first + index * minute), self.y + self.h + 12, words, 9, anchor="middle")
                for index, words in enumerate(hours)]


def nice(value):
    """A round number that is not below."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if value <= step * power * 1.0001)


# --- kinds of panels; each gets the panel, its answers by query, its place and the time


def draw_stat(panel, answers, place, times):
    x, y, w, h = place
    series = [one for answer in answers for one in answer if one.points]
    if not series:
        none = panel["fieldConfig"]["defaults"].get("noValue", "No data")
        return [text(x + w / 2, y + h / 2 + 6, none, 15, FAINT, "middle")]
    out = []
    if panel["options"]["graphMode"] == "area":
        out += spark(Wishes(panel), series[0], (x - 8, y + h * 0.55, w + 16, h * 0.45 + 6), times)
    named = panel["options"]["textMode"] == "value_and_name"
    for index, one in enumerate(series):
        wishes = Wishes(panel, one.name)
        middle = x + w * (index + 0.5) / len(series)
        words = wishes.word(one.last())
        size = min(28, w / len(series) / max(3, len(words)) / 0.6)
        lift = 0.4 if panel["options"]["graphMode"] == "area" else 0.6
        out.append(text(middle, y + h * lift + size / 4, words, round(size), wishes.color(one.last()), "middle", 600))
        if named:
            out.append(text(middle, y + h * lift + size / 4 + 16, one.name, 10, FAINT, "middle"))
    return out


def spark(wishes, one, place, times):
    values = [value for _, value in one.points]
    low, high = min(0, *values), max(values) or 1
    frame = Frame(place, times, low, high * 1.05)
    points = [frame.at(*point) for point in one.points]
    if len(points) < 2:
        return []
    color = wishes.color(one.last())
    floor = frame.y + frame.h
    area = path(points) + f"L{points[-1][0]:.1f} {floor:.1f}L{points[0][0]:.1f} {floor:.1f}Z"
    return [f'<path d="{area}" fill="{color}" opacity=".12"/>',
            f'<path d="{path(points)}" fill="none" stroke="{color}" opacity=".5"/>']


def draw_timeseries(panel, answers, place, times):
    x, y, w, h = place
    defaults = panel["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], defaults["unit"]
    series = [one for answer in answers for one in answer if one.points]
    if not series:
        return [text(x + w / 2, y + h / 2, defaults.get("noValue", "No data"), 12, FAINT, "middle")]
    stacked = custom["stacking"]["mode"] == "normal"
    log = custom["scaleDistribution"]["type"] == "log"
    limits = [step for step in defaults["thresholds"]["steps"] if step["value"] is not None]
    limits = limits if custom["thresholdsStyle"]["mode"] == "dashed" else []
    colored = colors(panel, series)
    piles = [item for item in colored if stacked and item[1].custom["stacking"]["mode"] == "normal"]
    alone = [item for item in colored if item not in piles]
    # In Grafana the mouse tells flat lines apart; on paper those that never left 0 only hide the others' names.
    told = [item for item in colored if any(value for _, value in item[0].points)]
    keys = key_of_colors(told, x, y + h, w) if told else (14, [text(x, y + h - 2, "all 0", 10)])
    low, high = extent(piles, alone, limits, log)
    if unit in ("bytes", "Bps") and high > 1024:
        power = 1024 ** int(math.log(high, 1024))
        high = nice(high / power) * power
    frame = Frame((x + 46, y + 6, w - 50, h - 26 - keys[0]), times, low, high, log)
    out = frame.drawn(unit)
    out += pile(frame, piles, custom["drawStyle"] == "bars")
    for one, wishes, color in alone:
        dash = ' stroke-dasharray="6 4"' if "lineStyle" in wishes.custom else ""
        for run in runs(one.points, times):
            out.append(f'<path d="{path([frame.at(*point) for point in run])}" fill="none" stroke="{color}" '
                       f'stroke-width="1.4"{dash}/>')
    for step in limits:
        line = frame.y_of(step["value"])
        out.append(f'<path d="M{frame.x:.1f} {line:.1f}h{frame.w:.1f}" stroke="{COLORS[step["color"]]}" '
                   'stroke-dasharray="5 4" opacity=".8"/>')
    return out + keys[1]


def colors(panel, series):
    """Each with the panel's wishes for it and its colour."""
    wished = [(one, Wishes(panel, one.name)) for one in series]
    return [(one, wishes, wishes.fixed() or PALETTE[index % len(PALETTE)])
            for index, (one, wishes) in enumerate(wished)]


def extent(piles, alone, limits, log):
    sums = {}
    for one, *_ in piles:
        for at, value in one.points:
            sums[at] = sums.get(at, 0) + value
    values = [*sums.values(), *(value for one, *_ in alone for _, value in one.points)]
    if log:
        above = [value for value in values if value > 0] or [1]
        return 10 ** math.floor(math.log10(min(above))), 10 ** math.ceil(math.log10(max(above) * 1.0001))
    return 0, nice(max([*values, *(step["value"] * 1.1 for step in limits)]))


def runs(points, times):
    """Points without a gap between them; a point alone is drawn as a short line."""
    step = min((later[0] - earlier[0] for earlier, later in zip(points, points[1:])), default=1)
    run = []
    for point in points:
        if run and point[0] - run[-1][0] > step * 1.5:
            yield run if len(run) > 1 else [run[0], (run[0][0] + step / 2, run[0][1])]
            run = []
        run.append(point)
    yield run if len(run) > 1 else [run[0], (min(times[1], run[0][0] + step / 2), run[0][1])]


def pile(frame, piles, bars):
    out, floor = [], {}
    for one, _, color in piles:
        points = [(at, floor.get(at, 0), floor.get(at, 0) + value) for at, value in one.points]
        floor |= {at: top for at, _, top in points}
        if not any(value for _, value in one.points):
            continue
        if bars:
            width = max(1.5, frame.w / 150)
            shapes = (box(frame.x_of(at) - width / 2, frame.y_of(top), width, frame.y_of(bottom) - frame.y_of(top))
                      for at, bottom, top in points if top > bottom)
            out.append(f'<path d="{"".join(shapes)}" fill="{color}" opacity=".85"/>')
        else:
            top = [frame.at(at, value) for at, _, value in points]
            bottom = [frame.at(at, value) for at, value, _ in reversed(points)]
            out.append(f'<path d="{path(top + bottom)}Z" fill="{color}" opacity=".3"/>')
            out.append(f'<path d="{path(top)}" fill="none" stroke="{color}"/>')
    return out


def key_of_colors(items, x, bottom, w):
    """The height that the names take, and their drawing."""
    lines, at = [[]], 0
    for one, _, color in items:
        wide = 22 + sum(7.2 if letter.isupper() else 5.4 for letter in one.name)
        if at + wide > w and lines[-1]:
            lines.append([])
            at = 0
        lines[-1].append((at, one.name, color))
        at += wide
    out = []
    for row, line in enumerate(lines):
        y = bottom - 14 * (len(lines) - 1 - row) - 2
        for at, name, color in line:
            out.append(rect(x + at, y - 6, 10, 3, color))
            out.append(text(x + at + 14, y, name, 10))
    return 14 * len(lines), out


def draw_heatmap(panel, answers, place, times):
    x, y, w, h = place
    buckets = sorted(answers[0], key=lambda one: float(one.labels["le"]))
    columns = sorted({at for one in buckets for at, _ in one.points})
    cells = []
    for below, one in zip([None, *buckets], buckets):
        under = dict(below.points) if below else {}
        cells.append({at: max(0, value - under.get(at, 0)) for at, value in one.points})
    used = [index for index, row in enumerate(cells) if any(value > 1e-6 for value in row.values())]
    if not used:
        return [text(x + w / 2, y + h / 2, "no chats", 12, FAINT, "middle")]
    first, last = max(0, used[0] - 1), used[-1]
    rows = last - first + 1
    frame = Frame((x + 46, y + 6, w - 50, h - 24), times, 0, rows)
    out = frame.clock()
    for index in range(first, last + 1):
        middle = frame.y_of(index - first + 0.5)
        limit = float(buckets[index].labels["le"])
        words = "more" if math.isinf(limit) else f"≤ {seconds(limit, None)}"
        out.append(text(frame.x - 5, middle + 3, words, 9, anchor="end"))
    most = max(value for row in cells for value in row.values())
    shades = {}
    width, height = frame.w / max(1, len(columns)), frame.h / rows
    for index in range(first, last + 1):
        for at, value in cells[index].items():
            if value > 1e-6:
                shade = max(1, round(HEAT_STEPS * math.sqrt(value / most)))
                left, top = frame.x_of(at) - width / 2, frame.y_of(index - first + 1)
                shades.setdefault(shade, []).append(box(left, top, width, height - 1))
    for shade, shapes in sorted(shades.items()):
        out.append(f'<path d="{"".join(shapes)}" fill="{COLORS["blue"]}" opacity="{shade / HEAT_STEPS:.1f}"/>')
    return out


def draw_timeline(panel, answers, place, times):
    x, y, w, h = place
    wishes = Wishes(panel)
    nodes = [one for answer in answers for one in answer if one.points][: int(h // 14)]
    frame = Frame((x + min(130, w * 0.3), y + 4, w - min(130, w * 0.3) - 4, h - 20), times, 0, 1)
    out = frame.clock()
    height = min(34, frame.h / max(1, len(nodes)))
    for row, one in enumerate(nodes):
        top = frame.y + row * height
        out.append(text(frame.x - 6, top + height / 2 + 3, clipped(one.name, frame.x - x), 10, anchor="end"))
        for begin, end, value in spans(one.points):
            left, right = frame.x_of(begin), frame.x_of(end)
            out.append(rect(left, top + 1, right - left, height - 3, wishes.color(value), 'opacity=".75"'))
            if height > 12 and right - left > 6.5 * len(wishes.word(value)):
                out.append(text(left + 6, top + height / 2 + 3, wishes.word(value), 10, "#ffffff", weight=600))
    return out


def spans(points):
    """Times in which a value stays."""
    begin, value = points[0]
    for at, now in points[1:]:
        if now != value:
            yield begin, at, value
            begin, value = at, now
    yield begin, points[-1][0], value


def draw_table(panel, answers, place, _times):
    x, y, w, h = place
    rows = merged(panel, answers)
    wanted = next(step["options"] for step in panel["transformations"] if step["id"] == "organize")
    shown = [(field, name) for field, name in wanted["renameByName"].items() if any(field in row for row in rows)]
    if not rows:
        return [text(x + w / 2, y + h / 2 + 4, panel["fieldConfig"]["defaults"]["noValue"], 13, FAINT, "middle")]
    out, colored = [], overridden(panel)
    wishes = {name: Wishes(panel, name) for _, name in shown}
    words = [[wishes[name].word(row[field]) if isinstance(row.get(field), float) else row.get(field, "")
              for field, name in shown] for row in rows]
    lines = [[name for _, name in shown], *words]
    lengths = [max(len(str(line[index])) for line in lines) + 2 for index in range(len(shown))]
    size = min(11, w / sum(lengths) / 0.56)
    lefts = [x + w * sum(lengths[:index]) / sum(lengths) for index in range(len(shown))]
    for left, (_, name) in zip(lefts, shown):
        out.append(text(left, y + 14, name, round(size, 1), COLORS["blue"], weight=600))
    for index, (row, line) in enumerate(zip(rows, words)):
        base = y + 34 + index * 20
        if base > y + h:
            break
        out.append(f'<path d="M{x:.1f} {base - 14:.1f}h{w:.1f}" stroke="{RULE}"/>')
        for left, (field, name), word in zip(lefts, shown, line):
            means = isinstance(row.get(field), float) and name in colored and "color" in wishes[name].values
            color = wishes[name].color(row[field]) if means else INK
            out.append(text(left, base, word, round(size, 1), color))
    return out


def overridden(panel):
    named = (override["matcher"] for override in panel["fieldConfig"]["overrides"])
    return {matcher["options"] for matcher in named if matcher["id"] == "byName"}


def merged(panel, answers):
    """Rows whose common labels are equal become one, as Grafana's transformation `merge` has it."""
    rows = []
    for target, answer in zip(panel["targets"], answers):
        field = f"Value #{target['refId']}" if len(answers) > 1 else "Value"
        for one in answer:
            new = {**one.labels, field: one.last()}
            same = next((row for row in rows if all(row[key] == new[key] for key in row.keys() & new.keys())
                         and row.keys() & new.keys()), None)
            if same is None:
                rows.append(new)
            else:
                same.update(new)
    return rows


def draw_shares(panel, answers, place, _times):
    x, y, w, h = place
    wishes = Wishes(panel)
    series = [one for answer in answers for one in answer if one.points]
    if not series:
        return [text(x + w / 2, y + h / 2, wishes.values["noValue"], 13, FAINT, "middle")]
    out = []
    for index, one in enumerate(series[: int(h // 34)]):
        top, value = y + 8 + index * 34, one.last()
        out.append(text(x, top + 8, one.name, 10))
        out.append(rect(x, top + 13, w, 10, RULE))
        out.append(rect(x, top + 13, w * min(1, value), 10, wishes.color(value)))
        out.append(text(x + w, top + 8, wishes.word(value), 10, wishes.color(value), "end", 600))
    return out


KINDS = {
    "stat": draw_stat, "timeseries": draw_timeseries, "heatmap": draw_heatmap, "state-timeline": draw_timeline,
    "table": draw_table, "bargauge": draw_shares,
}

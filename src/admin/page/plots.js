// Plots as SVG, made by hand. Invariant: where nothing was measured nothing is drawn.

import { el, svg } from "./dom.js";
import { clock, DAY, at as timeOf, utcDay } from "./format.js";
import { L } from "./labels.js";

const HEIGHT = 150, LEFT = 52, RIGHT = 8, TOP = 10, BOTTOM = 22;
/** At least this much room between two labels of times. */
const LABEL_ROOM = 110;
/** So wide is what one moment takes at least, in pixels: more would be noise. */
const MOMENT = 3;

/** The smallest of 1, 2, 4, 10, … that is not below a value, so that a scale and its half are round numbers. */
function round(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 10].map((step) => step * power).find((step) => step >= value);
}

/** Pieces of a line without gaps: a point that is missing, or has no value, ends one. */
function pieces(points, step, value) {
  const all = [];
  let last = null;
  for (const point of points) {
    const y = value(point);
    if (y == null) { last = null; continue; }
    if (last == null || point.at - last > step * 1.5) all.push([]);
    all.at(-1).push([point.at, y]);
    last = point.at;
  }
  return all;
}

export const most = (values) => Math.max(...values);
export const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

/** Points of one width, each of what the series make of those in it. */
function folded(points, step, series) {
  const groups = new Map();
  for (const point of points) {
    const at = Math.floor(point.at / step) * step;
    groups.set(at, [...(groups.get(at) ?? []), point]);
  }
  return [...groups].map(([at, group]) => ({
    at,
    values: series.map(({ value, fold }) => {
      const values = group.map(value).filter((v) => v != null);
      return values.length ? fold(values) : null;
    }),
  }));
}

export class Plot {
  constructor(box, { id, title, series, format }) {
    Object.assign(this, { id, title, series, format, drawn: "" });
    this.picture = el("div", { class: "picture" });
    this.legend = el("ul", { class: "legend" });
    this.readout = el("p", { class: "readout quiet" });
    this.scrub = el("input", { type: "range", class: "scrub", min: 0, step: 1, value: 0, "aria-label": L.moment(title) });
    this.scrub.addEventListener("input", () => this.point(Number(this.scrub.value)));
    this.scrub.addEventListener("pointermove", (event) => this.hover(event));
    this.scrub.addEventListener("pointerleave", () => this.point(null));
    this.scrub.addEventListener("blur", () => this.point(null));
    this.canvas = el("div", { class: "canvas" }, this.picture, this.scrub);
    box.replaceChildren(el("h3", {}, title), this.legend, this.canvas, this.readout);
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  update(points, step, from, to, now) {
    Object.assign(this, { all: points.filter((point) => point.at >= from && point.at <= to), finest: step, from, to, now });
    this.draw();
  }

  x(at) { return LEFT + ((at - this.from) / (this.to - this.from)) * (this.width - LEFT - RIGHT); }
  y(value) { return HEIGHT - BOTTOM - (value / this.top) * (HEIGHT - TOP - BOTTOM); }

  draw() {
    this.width = Math.floor(this.picture.clientWidth);
    if (!this.all || this.width < 100) return;
    const key = JSON.stringify([this.width, this.from, this.to, this.all.length, this.all.at(-1)]);
    if (key === this.drawn) return;
    this.drawn = key;
    const moments = (this.to - this.from) / this.finest;
    this.step = this.finest * Math.ceil((moments * MOMENT) / (this.width - LEFT - RIGHT));
    this.points = folded(this.all, this.step, this.series);
    const values = this.series.map(({ value }) => this.all.map(value).filter((v) => v != null));
    this.top = round(Math.max(0, ...values.flat()));
    const ranges = this.series.map(({ name }, i) =>
      values[i].length ? L.range(name, this.format(Math.min(...values[i])), this.format(Math.max(...values[i]))) : L.nothing(name));
    this.legend.replaceChildren(...ranges.map((range, i) => el("li", {}, sample(i), range)));
    const text = values.flat().length ? L.plotText(timeOf(this.from, this.now), timeOf(this.to, this.now), ranges.join("; ")) : L.noPoints;
    this.cursor = svg("g", { class: "cursor" });
    this.picture.replaceChildren(svg("svg", {
      width: this.width, height: HEIGHT, viewBox: `0 0 ${this.width} ${HEIGHT}`, role: "img", "aria-labelledby": `${this.id}-t ${this.id}-d`,
    }, svg("title", { id: `${this.id}-t` }, this.title), svg("desc", { id: `${this.id}-d` }, text),
    this.frame(), this.series.map((_, i) => this.lines(i)),
    this.cursor));
    this.scrub.max = Math.max(0, this.points.length - 1);
    this.scrub.disabled = this.points.length === 0;
    if (document.activeElement !== this.scrub) this.scrub.value = this.scrub.max;
    this.scrub.setAttribute("aria-valuetext", this.sayAt(this.points.at(-1)));
    this.point(document.activeElement === this.scrub ? Number(this.scrub.value) : null);
  }

  frame() {
    const half = this.format(this.top / 2) === this.format(this.top) ? [] : [this.top / 2];
    const levels = [0, ...half, this.top].map((value) => [
      svg("line", { x1: LEFT, x2: this.width - RIGHT, y1: this.y(value), y2: this.y(value), class: value ? "grid" : "axis" }),
      svg("text", { x: LEFT - 6, y: this.y(value) + 4, "text-anchor": "end", class: "label" }, this.format(value)),
    ]);
    const labels = Math.max(1, Math.min(4, Math.floor((this.width - LEFT) / LABEL_ROOM)));
    const times = Array.from({ length: labels + 1 }, (_, i) => {
      const at = this.from + ((this.to - this.from) * i) / labels;
      const anchor = i === 0 ? "start" : i === labels ? "end" : "middle";
      return svg("text", { x: this.x(at), y: HEIGHT - 5, "text-anchor": anchor, class: "label" }, timeOf(at, this.now));
    });
    return [levels, times];
  }

  lines(i) {
    return pieces(this.points, this.step, ({ values }) => values[i]).map((piece) => {
      const dots = piece.map(([at, v]) => `${this.x(at).toFixed(1)},${this.y(v).toFixed(1)}`);
      // A line from a point to itself is a dot.
      dots.push(dots.at(-1));
      const floor = this.y(0);
      const area = i === 0 && svg("polygon", {
        class: "area", points: `${this.x(piece[0][0]).toFixed(1)},${floor} ${dots.join(" ")} ${this.x(piece.at(-1)[0]).toFixed(1)},${floor}`,
      });
      return [area, svg("polyline", { points: dots.join(" "), class: `line s${i}` })];
    });
  }

  hover(event) {
    if (!this.points?.length) return;
    const box = this.picture.getBoundingClientRect();
    const at = this.from + ((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * (this.to - this.from);
    const next = this.points.findIndex((point) => point.at >= at);
    this.point(next < 0 ? this.points.length - 1 : next);
  }

  point(index) {
    const point = index == null ? null : this.points?.[index];
    if (!this.cursor) return;
    this.cursor.replaceChildren(...(point ? [svg("line", { x1: this.x(point.at), x2: this.x(point.at), y1: TOP, y2: HEIGHT - BOTTOM })] : []));
    this.readout.textContent = point ? this.sayAt(point) : "";
    if (point) this.scrub.setAttribute("aria-valuetext", this.sayAt(point));
  }

  sayAt(point) {
    if (!point) return L.noPoints;
    const said = this.series.map(({ name }, i) => (point.values[i] == null ? L.nothing(name) : `${name} ${this.format(point.values[i])}`));
    return `${clock(point.at)}: ${said.join(", ")}`;
  }
}

const sample = (i) => svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, svg("line", { x1: 1, x2: 21, y1: 5, y2: 5, class: `line s${i}` }));

/** A bar for each of the last days of UTC; dotted where nothing is known. */
export function bars(id, title, text, days, now, { value, top, format }) {
  const COUNT = 30, STEP = 10, TALL = 48;
  const today = now - (now % DAY);
  const byDay = new Map(days.map((day) => [day.from, day]));
  const all = Array.from({ length: COUNT }, (_, i) => today - (COUNT - 1 - i) * DAY).map((from, i) => {
    const day = byDay.get(from);
    const known = day && day.known_seconds > 0;
    const tall = known ? Math.max(1, (value(day) / (top || 1)) * TALL) : TALL;
    return svg("g", {}, svg("title", {}, `${utcDay(from)}: ${known ? format(value(day)) : L.unknown}`),
      !known && svg("path", { class: "unknown", d: `M${i * STEP + 1.5} ${TALL - 1}h${STEP - 3}` }),
      svg("rect", { x: i * STEP + 1, y: TALL - tall, width: STEP - 2, height: tall, rx: 1.5, class: known ? "bar" : "nobar" }));
  });
  const first = today - (COUNT - 1) * DAY;
  return [
    svg("svg", { viewBox: `0 0 ${COUNT * STEP} ${TALL}`, preserveAspectRatio: "none", role: "img", "aria-labelledby": `${id}-t ${id}-d` },
      svg("title", { id: `${id}-t` }, title), svg("desc", { id: `${id}-d` }, text), all),
    el("p", { class: "ends quiet" }, el("span", {}, utcDay(first)), el("span", {}, title), el("span", {}, utcDay(today))),
  ];
}

/** A speed on a scale with the network's two limits. */
export function scale(id, title, value, floor, best) {
  const WIDE = 300, top = Math.max(best * 1.6, value * 1.1);
  const x = (v) => (v / top) * WIDE;
  const tick = (v) => svg("line", { x1: x(v), x2: x(v), y1: 0, y2: 22, class: "limit" });
  return svg("svg", { viewBox: `0 0 ${WIDE} 40`, class: "scale", role: "img", "aria-labelledby": `${id}-t` },
    svg("title", { id: `${id}-t` }, title),
    svg("rect", { x: 0, y: 5, width: WIDE, height: 12, rx: 6, class: "track" }),
    svg("rect", { x: 0, y: 5, width: Math.max(6, x(value)), height: 12, rx: 6, class: value < floor ? "low" : "bar" }),
    tick(floor), tick(best),
    svg("text", { x: x(floor), y: 36, "text-anchor": "middle", class: "label" }, `${L.floor} ${floor}`),
    svg("text", { x: x(best), y: 36, "text-anchor": "middle", class: "label" }, `${L.best} ${best}`));
}

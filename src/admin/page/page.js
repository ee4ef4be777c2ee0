// Puts the page together: what each part shows of what is known.

import { onAction, showActions } from "./actions.js";
import { byId, el, quiet, show, svg, table } from "./dom.js";
import { at, bytes, DAY, decimal, ms, percent, short, span, usd, whole } from "./format.js";
import { L } from "./labels.js";
import { bars, mean, most, Plot, scale } from "./plots.js";
import { follow, judge, lastDay, store, windowOf } from "./state.js";

const FEW = 8;
/** The network's limits by the node's interface: floor, and above what is the best track, in tokens/s (docs/interviews.md). */
const LIMITS = { ollama: [10, 20], openai: [15, 30] };
const CIRCLE = "M32 4a28 28 0 1 1-.1 0z", ALERT = "M32 19v16M32 44h.1", TICK = "M20 33l9 9 16-19";
/** Outline and sign of each tone. */
const SHAPES = {
  good: [CIRCLE, TICK], idle: [CIRCLE, TICK], busy: [CIRCLE, "M20 32h.1M32 32h.1M44 32h.1"], unknown: [CIRCLE, "M25 26a7 7 0 1 1 9 7q-2 1-2 4M32 45h.1"],
  pause: ["M16 5h32a11 11 0 0 1 11 11v32a11 11 0 0 1-11 11H16A11 11 0 0 1 5 48V16A11 11 0 0 1 16 5z", "M25 21v22M39 21v22"],
  warn: ["M32 4l29 52H3z", ALERT], bad: ["M21 4h22l17 17v22L43 60H21L4 43V21z", ALERT],
};

const dash = "–";
const or = (value, format) => (value == null ? dash : format(value));
const mark = (kind, sign, text) => [el("span", { class: `mark ${kind}`, "aria-hidden": "true" }, sign), ` ${text}`];

let showsAll = false;
let showsDays = false;

function showState() {
  const said = judge();
  byId("state").className = `state ${said.tone}`;
  const [outline, sign] = SHAPES[said.tone];
  show("shape", svg("svg", { viewBox: "0 0 64 64", "aria-hidden": "true" }, svg("path", { d: outline }), svg("path", { class: "sign", d: sign })));
  show("word", L.word[said.word]);
  show("sentence", said.sentence);
  show("when", since(said).join(" "));
  const warnings = said.tone === "unknown" ? [] : store.status.warnings;
  show("reasons", list(L.also, said.more), list(L.mend, warnings));
  const aliases = store.status?.nodes.map((node) => node.alias).join(", ") ?? "";
  show("aliases", aliases);
  document.title = [L.word[said.word], aliases || "pin-sidecar"].join(" · ");
}

const list = (title, sentences) => (sentences.length ? [el("h3", {}, title), el("ul", {}, sentences.map((one) => el("li", {}, one)))] : []);

/** Since when it is so, and what comes next and when; it counts, so it stands outside of what is read aloud. */
function since({ word, tone }) {
  const { status, history } = store;
  if (word === "silent" && store.silence() > 1) return [L.noAnswerSince(store.silence())];
  if (!status || tone === "unknown") return [];
  const now = store.now();
  const { session, pause } = status;
  if (word === "paused" || word === "pausing") {
    return [L.pausedSince(pause.since, now), pause.until ? L.resumesIn(pause.until - now) : ""];
  }
  const retry = Math.max(0, ...status.nodes.map((node) => node.interview?.retry_at ?? 0));
  const again = retry > now ? L.nextInterview(retry - now, retry, now) : "";
  if (session.state === "up") return [session.logged_in_since ? L.upSince(session.logged_in_since, now, now - session.logged_in_since) : "", again];
  const down = history?.outages.find((outage) => outage.to == null)?.from ?? session.since;
  return [down ? L.downSince(down, now, now - down) : "",
    session.backoff_until ? L.nextAttempt(session.backoff_until - now, session.backoff_until, now) : "", again];
}

const tile = (title, figure, ...notes) => el("div", { class: "tile" }, el("h3", {}, title), el("p", { class: `figure ${figure === L.unknown ? "none" : ""}` }, figure),
  notes.filter(Boolean).map(quiet));

function known(window, now) {
  if (!window.isKnown || window.isWhole) return "";
  return window.isBegun ? L.knownSince(store.history.known_since, now) : L.knownPart(window.known, window.all);
}

function showEarned(history, now) {
  const windows = [[L.today, 1, 0], [L.yesterday, 1, 1], [L.week, 7, 0], [L.month, 30, 0]];
  show("earned", windows.map(([title, length, back]) => {
    const window = windowOf(history, now, length, back);
    return tile(title, window.isKnown ? usd(window.usd) : L.unknown,
      L.utc(window.from, window.last), window.isKnown && L.volume(window.requests, short(window.tokens)), known(window, now));
  }));
  const days = history.days.filter((day) => day.from > now - 30 * DAY && day.known_seconds > 0);
  const top = Math.max(0, ...days.map((day) => day.usd));
  show("earned-days", bars("earned-bars", L.earnedDays, L.daysText(days.length), days, now, { value: (day) => day.usd, top, format: usd }));
  show("uptime-days", bars("uptime-bars", L.uptimeDays, L.daysText(days.length), days, now,
    { value: (day) => day.up_seconds / day.known_seconds, top: 1, format: percent }));
}

function showUptime(history, now) {
  const windows = [[L.day1, lastDay(history, now)], [L.day7, windowOf(history, now, 7)], [L.day30, windowOf(history, now, 30)]];
  show("uptime", windows.map(([title, window]) =>
    tile(title, window.isKnown ? percent(Math.min(1, window.up / window.known)) : L.unknown,
      window.from && L.utc(window.from, window.last), known(window, now))));
  show("outages", table(L.outages, L.noOutages, [
    [L.from, (outage) => at(outage.from, now), "fit"],
    [L.lasted, (outage) => (outage.to == null ? L.stillOut(now - outage.from) : span(outage.to - outage.from)), "fit"],
    [L.why, (outage) => outage.why, "wide"],
  ], history.outages));
}

const tierMark = (tier) => (tier === "failed" ? mark("failed", "✕", L.tier.failed) : mark("passed", "✓", L.tier[tier] ?? tier));

function quality(node, index, now) {
  const interview = node.interview;
  const [floor, best] = LIMITS[node.api_mode] ?? LIMITS.ollama;
  const speed = interview?.tokens_per_second;
  const track = speed > best ? L.above(best) : speed >= floor ? L.between(floor, best) : L.below(floor);
  return el("div", { class: "quality" },
    el("h3", {}, node.alias),
    el("p", { class: "figure" }, node.quality_tier ? tierMark(node.quality_tier) : L.noTier),
    interview?.accuracy == null ? null : el("p", {}, `${L.accuracy}: ${percent(interview.accuracy)}`),
    speed == null ? null : [el("p", {}, `${L.speed}: ${L.perSecond(speed)}, ${track}.`), scale(`scale-${index}`, L.scale(node.alias), speed, floor, best)],
    interview && quiet(L.measured(interview.at, now, now - interview.at)));
}

function showQuality(status, history, now) {
  show("quality", status.nodes.map((node, i) => quality(node, i, now)));
  show("interviews", table(L.interviews, null, [
    [L.when, (verdict) => at(verdict.at, now)],
    [L.node, (verdict) => verdict.node, "name"],
    [L.outcomeTitle, (verdict) => tierMark(verdict.tier)],
    [L.accuracy, (verdict) => or(verdict.accuracy, percent), "number"],
    [L.speed, (verdict) => or(verdict.tokens_per_second, L.perSecond), "number"],
  ], history?.interviews ?? []));
}

let plots = [];
function makePlots() {
  const make = (id, title, format, series) => new Plot(byId(id), { id, title, format, series });
  plots = [
    make("plot-load", L.load, whole, [{ name: L.running, value: (p) => p.running, fold: most }, { name: L.waiting, value: (p) => p.waiting, fold: most }]),
    make("plot-tokens", L.tokens, decimal, [{ name: L.generated, value: (p) => p.tokens / range().step, fold: mean }]),
    make("plot-first", L.first, ms, [{ name: L.p50, value: (p) => p.first_token_p50_ms, fold: mean }, { name: L.p95, value: (p) => p.first_token_p95_ms, fold: most }]),
  ];
  for (const [label, days] of [[L.lastHour, false], [L.twoDays, true]]) {
    const button = el("button", { type: "button", "aria-pressed": String(days === showsDays) }, label);
    button.addEventListener("click", () => {
      showsDays = days;
      byId("ranges").querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      showPlots();
    });
    byId("ranges").append(button);
  }
}

const range = () => (showsDays ? store.history.coarse : store.history.fine);

function showPlots() {
  if (!store.history) return;
  const { step, points } = range();
  const to = Math.max(store.history.now, points.at(-1)?.at ?? 0);
  plots.forEach((plot) => plot.update(points, step, to - (showsDays ? 2 * DAY : 3600), to, to));
}

const modelOf = (request) => request.model ?? L.other;
const rate = ({ generation_tokens: tokens, first_token_ms: first, duration_ms: took }) =>
  (tokens && first != null && took > first ? decimal(tokens / ((took - first) / 1000)) : dash);

function showRequests({ requests }, now) {
  const firsts = [[L.model, modelOf, "name"], [L.kind, (r) => L.operation[r.operation] ?? r.operation]];
  show("running", table(L.runningCaption, L.noneRuns, [
    ...firsts,
    [L.age, (r) => ms(r.age_ms), "number"],
    [L.wait, (r) => or(r.wait_ms, ms).replace(dash, L.waits), "number"],
    [L.firstToken, (r) => (r.first_token_ms == null ? L.loads : ms(r.first_token_ms)), "number"],
    [L.id, (r) => r.id, "id"],
  ], requests.running));
  const recent = requests.recent;
  show("recent", table(L.recentCaption, L.noneRan, [
    ...firsts,
    [L.outcomeTitle, (r) => (r.outcome === "ok" ? mark("passed", "✓", L.ok) : mark("failed", "✕", r.outcome))],
    [L.when, (r) => at(r.received, now)],
    [L.wait, (r) => or(r.wait_ms, ms), "number"],
    [L.firstToken, (r) => or(r.first_token_ms, ms), "number"],
    [L.took, (r) => ms(r.duration_ms), "number"],
    [L.promptTokens, (r) => or(r.prompt_tokens, whole), "number"],
    [L.outTokens, (r) => or(r.generation_tokens, whole), "number"],
    [L.rate, rate, "number"],
    [L.id, (r) => r.id, "id"],
  ], showsAll ? recent : recent.slice(0, FEW)));
  byId("all").hidden = recent.length <= FEW;
  show("all", showsAll ? L.showFewer : L.showAll(recent.length));
}

function modelState({ name, loaded, pull }, preloads) {
  if (pull) {
    const { state, total_bytes: all, completed_bytes: done } = pull;
    return [mark(...(state === "failed" ? ["failed", "✕"] : ["skipped", "↓"]), L.pull[state] ?? state),
      all ? [el("progress", { max: all, value: done, "aria-label": name }), ` ${L.ofBytes(bytes(done), bytes(all))}`] : null];
  }
  const preload = preloads.find((one) => one.model === name)?.state;
  if (preload && preload !== "loaded") return mark("warned", /ing$/.test(preload) ? "…" : "!", L.preload[preload] ?? preload);
  return loaded ?? preload ? mark("passed", "●", L.preload[preload] ?? L.loaded) : loaded == null ? dash : mark("skipped", "○", L.onDisk);
}

function showModels({ models, hidden, pulls, preloads }) {
  const all = [...models, ...pulls.filter(({ state }) => state !== "done").map((pull) => ({ name: pull.model, pull }))];
  for (const { model } of preloads) if (!all.some(({ name }) => name === model)) all.push({ name: model });
  show("models",
    table(L.offered, L.noModels, [
      [L.model, (model) => model.name, "name"],
      [L.state, (model) => modelState(model, preloads)],
      [L.context, (model) => or(model.context_length, whole), "number"],
    ], all),
    table(L.hidden, null, [[L.model, (model) => model.name, "name"], [L.why, (model) => model.why, "wide"]], hidden));
}

function showNodes({ nodes }) {
  show("nodes", table(L.nodesCaption, null, [
    [L.node, (node) => node.alias, "name"],
    [L.nodeId, (node) => node.node_id ?? L.notRegistered, "id"],
    [L.region, (node) => node.region],
    [L.mode, (node) => node.api_mode],
    [L.capacity, (node) => whole(node.capacity), "number"],
  ], nodes));
}

function showAll() {
  const { status, history } = store;
  showState();
  showActions();
  document.body.classList.toggle("bare", !status);
  if (!status) return;
  const now = store.now();
  showRequests(status, now);
  showModels(status);
  showNodes(status);
  showQuality(status, history, now);
  const earned = Object.entries(status.counts.earnings_estimate_usd).sort(([, a], [, b]) => b - a);
  show("earned-models", table(L.perModelCaption(status.uptime_seconds), L.nothingYet, [
    [L.model, ([name]) => name, "name"], [L.estimate, ([, value]) => usd(value), "number"]], earned));
  show("versions", L.versions(status.versions, status.session, status.uptime_seconds));
  if (!history) return;
  showEarned(history, now);
  showUptime(history, now);
  showPlots();
}

document.querySelectorAll("[data-label]").forEach((element) => { element.textContent = L[element.dataset.label]; });
byId("page").hidden = false;
makePlots();
byId("all").addEventListener("click", () => { showsAll = !showsAll; showAll(); });
onAction(follow(showAll));
setInterval(() => { if (!document.hidden) showState(); }, 1000);

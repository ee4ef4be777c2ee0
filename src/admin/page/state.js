// What the page knows: it asks the sidecar while somebody looks, and judges what the answer means.
// Invariant: what is not known stays unknown; a number that is too old says so.

import { clock, DAY } from "./format.js";
import { L } from "./labels.js";

const POLL = 2000, PATIENCE = 5000, HISTORY_EVERY = 15000;
/** From what age of the last answer on the page says that there is none, in seconds. */
const SILENT_AFTER = 5;
/** For how long after a request it counts as earning, in seconds. */
const EARNING = 900;
/** For how long a process counts as starting, in seconds. */
const STARTING = 60;
const TOKEN = "pin-admin-token";

export const store = {
  status: null, history: null, refusal: null, brought: null, askedAt: null, answeredAt: null,
  get token() { return sessionStorage.getItem(TOKEN); },
  set token(value) { value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN); },
  /** The server's clock, also between its answers. */
  now() { return this.status ? this.status.now + Math.round((performance.now() - this.answeredAt) / 1000) : Date.now() / 1000; },
  /** Seconds since the first question that had no answer. */
  silence() { return this.askedAt && (performance.now() - this.askedAt) / 1000; },
};

export function ask(path, options = {}, patience = PATIENCE) {
  const headers = store.token ? { Authorization: `Bearer ${store.token}` } : {};
  return fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(patience) });
}

async function askForStatus() {
  const brought = store.token;
  store.askedAt ??= performance.now();
  const answer = await ask("/status");
  store.brought = brought;
  store.refusal = answer.ok ? null : { status: answer.status, why: (await answer.text()).trim() };
  if (answer.ok) store.status = { warnings: [], ...await answer.json(), ...await (await ask("/readyz?always_ok")).json() };
  else if (answer.status === 401 || answer.status === 403) store.status = store.history = null;
  store.answeredAt = performance.now();
  store.askedAt = null;
}

const newest = (list) => list.at(-1)?.at ?? 0;

async function askForHistory() {
  const old = store.history;
  const open = old?.outages.find((outage) => outage.to == null);
  const since = old ? Math.min(newest(old.fine.points), open?.from ?? Infinity) : 0;
  const answer = await ask(`/history?since=${since}`);
  if (!answer.ok) return;
  const fresh = await answer.json();
  // A process that has begun anew knows nothing of what the old one told.
  if (old && (fresh.known_since > old.known_since || fresh.now < old.now)) {
    store.history = null;
    return askForHistory();
  }
  store.history = old ? merged(old, fresh) : fresh;
}

function merged(old, fresh) {
  const series = (name, most) => {
    const { step, points } = fresh[name];
    const before = old[name].points.filter(({ at }) => at < (points[0]?.at ?? Infinity));
    return { step, points: [...before, ...points].slice(-most) };
  };
  const list = (name, key) => {
    const told = new Set(fresh[name].map(key));
    return [...fresh[name], ...old[name].filter((one) => !told.has(key(one)))].slice(0, 20);
  };
  return {
    ...fresh, fine: series("fine", 720), coarse: series("coarse", 1440), outages: list("outages", ({ from }) => from),
    interviews: list("interviews", ({ at, node }) => `${at} ${node}`),
  };
}

/** Asks again and again while the page is visible; `changed` is told after each answer or failure. */
export function follow(changed) {
  let timer, historyAt = -Infinity, running = false, again = false;
  const round = async () => {
    if (running) { again = true; return; }
    running = true;
    clearTimeout(timer);
    try {
      await askForStatus();
      changed();
      if (store.status && performance.now() - historyAt > HISTORY_EVERY) {
        await askForHistory();
        historyAt = performance.now();
      }
    } catch { /* Silence is told by its length. */ }
    running = false;
    changed();
    if (again) { again = false; return round(); }
    if (!document.hidden) timer = setTimeout(round, POLL);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) round(); });
  round();
  return round;
}

/** What is to be said on top: tone, word and sentence, and what belongs below it. */
export function judge() {
  const { status, refusal } = store;
  if (store.silence() > SILENT_AFTER) {
    return verdict("silent", "unknown", status ? L.silent(clock(status.now)) : L.neverAnswered);
  }
  if (refusal?.status === 401) return verdict("locked", "unknown", L.locked);
  if (refusal) return verdict("silent", "unknown", refusal.why);
  if (!status) return verdict("loading", "unknown", L.loading);
  const [first = "", ...more] = status.pending.map(withoutCountdown);
  const stays = away(status, first);
  if (stays) return { ...stays, more: stays.sentence === first ? more : [] };
  if (status.ready) return ready(status);
  const session = status.session;
  if (session.state === "up" && isPreparing(status)) return verdict("preparing", "busy", first, more);
  const isStarting = session.state !== "waiting" && session.attempts <= 1 && !session.last_disconnect && status.uptime_seconds < STARTING;
  return isStarting ? verdict("starting", "busy", first, more) : verdict("offline", "bad", first, more);
}

const verdict = (word, tone, sentence, more = []) => ({ word, tone, sentence, more });

/** It was told to stay away. */
function away(status, first) {
  const serves = status.session.state === "up";
  if (status.pause) {
    return serves ? verdict("pausing", "pause", first) : verdict("paused", "pause", L.paused(status.pause.until, status.now));
  }
  return status.draining ? verdict(serves ? "draining" : "drained", "pause", first) : null;
}

function ready(status) {
  const failed = status.nodes.filter((node) => node.interview && !node.interview.passed).map((node) => node.alias);
  if (failed.length) return verdict("failed", "warn", L.failed(failed.join(", ")));
  const chats = status.models.some(({ name }) => !name.startsWith("tts:"));
  if (!chats || status.speech?.up === false) return verdict("online", "warn", L.lacking(chats ? L.speech : L.chats));
  if (status.load.running) return verdict("working", "good", L.working(status.load));
  const last = status.requests.last_at;
  if (last == null) return verdict("idle", "idle", L.never(status.uptime_seconds));
  const ago = status.now - last;
  return ago < EARNING ? verdict("online", "good", L.online(ago)) : verdict("idle", "idle", L.idle(ago));
}

const isPreparing = (status) => status.backend.up
  && (status.preloads.some(({ state }) => state === "loading" || state === "waiting") || status.pulls.some(({ state }) => state === "pulling"));

/** The server counts in its sentence; the page counts beside it, where nobody is told each second anew. */
const withoutCountdown = (sentence) =>
  sentence.replace(/ Next attempt in \d+ s(\.|, )/, (_, end) => (end === "." ? "" : " Next attempt "));

/** Sums over the `length` days of UTC that end `back` days before the one of `now`; `null` where none of it is known. */
export function windowOf(history, now, length, back = 0) {
  const midnight = now - (now % DAY);
  const from = midnight - (back + length - 1) * DAY, last = midnight - back * DAY;
  const end = Math.min(last + DAY, now);
  const days = history.days.filter((day) => day.from >= from && day.from <= last && day.known_seconds > 0);
  const sum = (key) => days.reduce((total, day) => total + day[key], 0);
  const known = sum("known_seconds");
  return {
    from, last, all: end - from, known, isKnown: days.length > 0,
    // A minute or two are lost between two sums.
    isWhole: known >= (end - from) - 180,
    isBegun: history.known_since > from, usd: sum("usd"), up: sum("up_seconds"), requests: sum("requests"), tokens: sum("tokens"),
  };
}

/** Share of the last 24 hours with a session, of the time that is known. */
export function lastDay(history, now) {
  const points = history.coarse.points.filter(({ at }) => at > now - DAY);
  const known = points.length * history.coarse.step;
  const up = points.reduce((total, point) => total + point.up_seconds, 0);
  return { isKnown: known > 0, known, up, all: DAY, isWhole: known >= DAY - 300, isBegun: history.known_since > now - DAY };
}

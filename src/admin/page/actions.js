// Pause, resume and test. Where a button may not work there is none: the token is asked for once, or the command stands
// there that does it.

import { byId, el, table } from "./dom.js";
import { ms, span } from "./format.js";
import { L } from "./labels.js";
import { ask, store } from "./state.js";

const LENGTHS = [["30m", 1800], ["1h", 3600], ["2h", 7200], ["4h", 14400], ["8h", 28800]];
const VERB_PATIENCE = 10000;
const PROGRAM = "docker compose exec pin-sidecar /pin-sidecar ";
/** A model may have to be loaded, and a request ahead of it to end. */
const CHECK_PATIENCE = 900000;

let refresh = () => {};
// `wanted`: why a button, unlike `may`, wants the token.
let tokenWasRefused = false, wanted;
let busy = false;
let drawn = null;

export function onAction(then) { refresh = then; }

const say = (tone, ...content) => byId("told").replaceChildren(el("div", { class: `told ${tone}` }, content));

async function post(path, patience, told) {
  if (busy) return;
  busy = true;
  byId("controls").ariaBusy = "true";
  try {
    const answer = await ask(path, { method: "POST" }, patience);
    const type = answer.headers.get("content-type") ?? "";
    if (type.includes("json")) told(await answer.json(), answer.status);
    else {
      const why = (await answer.text()).trim() || `HTTP ${answer.status}`;
      if (answer.status === 401) [wanted, tokenWasRefused, store.token] = [why, !!store.token, null];
      say("bad", L.notDone(why));
    }
  } catch {
    say("bad", L.notDone(L.noReply));
  }
  busy = false;
  byId("controls").ariaBusy = "false";
  refresh();
}

const pause = (length) => post(`/session/disconnect${length ? `?for=${length}` : ""}`, VERB_PATIENCE,
  (answer) => say("good", L.pauseTold(answer.until, store.now())));

const resume = () => post("/session/connect", VERB_PATIENCE, (_, status) => say("good", status === 202 ? L.resumeLater : L.resumeTold));

async function test() {
  if (busy) return;
  const began = performance.now();
  const tell = () => say("busy", L.testing((performance.now() - began) / 1000));
  tell();
  const timer = setInterval(tell, 5000);
  await post("/check", CHECK_PATIENCE, (report) => { clearInterval(timer); say(report.passed ? "good" : "bad", steps(report)); });
  clearInterval(timer);
}

function steps(report) {
  const mark = { passed: "✓", warned: "!", failed: "✕", skipped: "–" };
  return table(L.testCaption(report.passed), null, [
    [L.step, (step) => step.name],
    [L.result, (step) => [el("span", { class: `mark ${step.outcome}`, "aria-hidden": "true" }, mark[step.outcome]), ` ${L.outcome[step.outcome] ?? step.outcome}`]],
    [L.found, (step) => [step.found, step.advice ? el("strong", { class: "advice" }, ` ${step.advice}`) : ""], "wide"],
    [L.took, (step) => ms(step.duration_ms), "number"],
  ], report.steps);
}

function button(text, act, kind) {
  const made = el("button", { type: "button", class: kind }, text);
  made.addEventListener("click", act);
  return made;
}

function pauses(isPaused) {
  const lengths = LENGTHS.map(([length, seconds]) => button(span(seconds), () => pause(length)));
  return el("div", { role: "group", "aria-labelledby": "pause-for" },
    el("h3", { id: "pause-for" }, isPaused ? L.longer : L.pauseFor),
    el("div", { class: "choice" }, lengths, button(L.forever, () => pause(null))),
    el("p", { class: "note" }, L.pauseNote));
}

function buttons(isPaused) {
  return [
    isPaused ? el("p", { class: "resume" }, button(L.resume, resume, "main")) : null,
    pauses(isPaused),
    el("p", {}, button(L.test, test)), el("p", { class: "note" }, L.testNote),
  ];
}

function tokenForm(why) {
  const input = el("input", {
    type: "password", id: "token", autocomplete: "off", required: true, "aria-describedby": "token-note",
  });
  const form = el("form", { class: "token" }, el("p", {}, why),
    el("label", { for: "token" }, L.token), input,
    el("button", { class: "main" }, L.tokenUse),
    el("p", { id: "token-note", class: "note" }, tokenWasRefused ? el("strong", {}, `${L.tokenWrong} `) : "", L.tokenNote));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    store.token = input.value.trim();
    tokenWasRefused = false;
    refresh();
  });
  return form;
}

function commands(why) {
  return [el("p", {}, why), el("p", {}, L.commandsWhy),
    el("dl", { class: "commands" }, L.commands.map(([what, verb]) => [el("dt", {}, what), el("dd", {}, el("code", {}, PROGRAM + verb))]))];
}

/** Draws one of the three, anew where it differs. */
export function showActions() {
  const { status, refusal } = store;
  const isLocked = refusal?.status === 401;
  const may = wanted && !store.token ? { token: true, why: wanted } : status?.may ?? { command: true };
  // A token that was brought and does not help is none.
  if (store.token && store.token === store.brought && (isLocked || (status && !may.command && may.token))) {
    tokenWasRefused = true;
    store.token = null;
  }
  const isPaused = Boolean(status?.draining);
  const key = [isLocked, may.command, may.command && isPaused, may.token, may.why, tokenWasRefused].join();
  byId("actions").hidden = !status && !isLocked;
  if (key === drawn) return;
  byId("actions-title").textContent = isLocked ? L.token : L.actionsTitle;
  const controls = byId("controls");
  const had = controls.contains(document.activeElement);
  drawn = key;
  const parts = isLocked ? [tokenForm(L.tokenReading)] : may.command ? buttons(isPaused)
    : may.token ? [tokenForm(may.why)] : commands(may.why);
  controls.replaceChildren(...parts.filter(Boolean));
  // Whoever was here by the keyboard stays here.
  if (had) (controls.querySelector("input, button") ?? byId("actions")).focus();
}

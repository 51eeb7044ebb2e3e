// The page: one user, one grid, and what becomes of each rating.

import { eventId, get, post, Refused, watch } from "./api.js";
import { draw, Rounds } from "./curve.js";
import { Grid } from "./grid.js";
import { History } from "./history.js";
import { Shopper } from "./shopper.js";

const $ = (id) => document.getElementById(id);
const KNOWN = 12;
const page = { user: "", perPage: 10, grid: null, generation: null, state: null, before: null, prompt: "", sending: 0, unwatch: () => {} };

const grid = new Grid($("grid"), rate);
const shopper = new Shopper({ button: $("shop"), field: $("taste"), hint: $("shopper-hint"), grid, settled, next });
let history = new History($("history"), goBack);
let rounds = new Rounds("");
let waiting = [];

function say(phase, text) {
  $("status").dataset.phase = phase;
  if ($("said").textContent !== text) $("said").textContent = text;
}

function refuse(error) {
  if (!(error instanceof Refused)) throw error;
  const later = error.retryAfter ? ` Try again in ${Math.ceil(error.retryAfter)} s.` : "";
  say("error", `That did not work: ${error.message}.${later}`);
}

async function next() {
  const user = page.user;
  page.before = null;
  $("compare").setAttribute("aria-pressed", "false");
  grid.wait(page.perPage);
  say("loading", "Making a new grid…");
  const prompt = page.prompt;
  try {
    const made = await post("generate", { user, count: page.perPage, prompt });
    if (user !== page.user || prompt !== page.prompt) return;
    page.generation = made;
    grid.show(made.items);
    progress();
  } catch (error) {
    refuse(error);
  }
}

function progress() {
  const votes = grid.votes;
  document.documentElement.style.setProperty("--done", `${(100 * votes) / Math.max(1, grid.items.length)}%`);
  const pending = (page.state?.pending_events ?? 0) + page.sending;
  const current = page.state?.current_revision?.revision ?? "";
  if (!page.generation) return;
  if (pending) say("learning", `Learning from ${pending} rating${pending === 1 ? "" : "s"}…`);
  else if (current !== page.generation.revision) say("ready", "It has learnt something new. Press New grid to see it.");
  else if (votes) say("rating", `${votes} of ${grid.items.length} rated.`);
  else say("rating", current ? "Made by your own adapter. Like or dislike what you see." : "Made by the backbone. Like or dislike what you see.");
}

function rate(item, grade) {
  rounds.record(page.generation.generation, grid.likes, grid.votes);
  draw($("curve"), rounds.rounds);
  page.sending += 1;
  waiting.push({ event_id: eventId(), item_id: item.id, grade });
  if (waiting.length === 1) setTimeout(send, 120);
  progress();
}

async function send() {
  const ratings = waiting;
  const user = page.user;
  waiting = [];
  try {
    const { outcomes } = await post("feedback", { user, ratings });
    const refused = outcomes.filter((outcome) => outcome.reason);
    for (const outcome of refused) takeBack(ratings.find((each) => each.event_id === outcome.event_id));
    if (user === page.user && page.state) page.state = await get("user", { user });
    page.sending -= ratings.length;
    if (refused.length) refuse(new Refused(refused[0]));
    else changed(page.state);
  } catch (error) {
    page.sending -= ratings.length;
    ratings.forEach(takeBack);
    refuse(error);
  }
}

function takeBack(rating) {
  grid.unvote(rating.item_id, rating.grade);
}

function changed(state) {
  const before = page.state?.current_revision?.revision ?? "";
  page.state = state;
  const current = state.current_revision?.revision ?? "";
  $("likes").textContent = state.likes;
  $("dislikes").textContent = state.dislikes;
  $("pending").textContent = state.pending_events;
  if (current !== before || !$("history").children.length) showHistory(current);
  progress();
  const done = grid.items.length && grid.votes === grid.items.length;
  if (done && settled() && current !== page.generation?.revision && !shopper.running) next();
}

function showHistory(current) {
  history.show(page.user, current, page.prompt).catch(refuse);
}

// What all items are to show from now on, those of the revisions' strips as well.
async function ask(prompt) {
  page.prompt = prompt;
  history.forget();
  showHistory(page.state?.current_revision?.revision ?? "");
  await next();
}

// Whether everything that was rated is learnt.
function settled() {
  return page.sending === 0 && (page.state?.pending_events ?? 0) === 0;
}

async function compare() {
  if (!page.generation || !grid.items.length) return;
  const showing = $("compare").getAttribute("aria-pressed") === "true";
  if (showing) {
    grid.picture(null);
    $("compare").setAttribute("aria-pressed", "false");
    return progress();
  }
  try {
    page.before ??= (await post("generate", {
      user: page.user, count: grid.items.length, seed: grid.items[0].seed, revision: "base", prompt: page.prompt,
    })).items.map((item) => item.image);
    grid.picture(page.before, "before");
    $("compare").setAttribute("aria-pressed", "true");
    say("ready", "The same seeds, made by the backbone alone.");
  } catch (error) {
    refuse(error);
  }
}

async function sure(title, text, yes) {
  $("sure-title").textContent = title;
  $("sure-text").textContent = text;
  $("sure-yes").textContent = yes;
  $("sure").returnValue = "no";
  $("sure").showModal();
  return new Promise((answer) => $("sure").addEventListener("close", () => answer($("sure").returnValue === "yes"), { once: true }));
}

async function goBack(revision, label) {
  if (!(await sure(`Go back to ${label.toLowerCase()}?`, "It serves from now on, and the next update builds on it. Later revisions are kept.", "Go back"))) return;
  try {
    changed(await post("rollback", { user: page.user, revision }));
    await next();
  } catch (error) {
    refuse(error);
  }
}

async function forget() {
  if (!(await sure("Forget everything?", "The backbone serves this user again. The revisions are kept, so you can go back.", "Forget"))) return;
  try {
    changed(await post("reset", { user: page.user }));
    rounds.clear();
    draw($("curve"), rounds.rounds);
    await next();
  } catch (error) {
    refuse(error);
  }
}

// This browser's users, the newest first, are offered where a name is asked for.
function remember(user) {
  const users = [user, ...known().filter((each) => each !== user)].slice(0, KNOWN);
  localStorage.setItem("papa-users", JSON.stringify(users));
  $("known").replaceChildren(...users.map((name) => new Option(name, name)));
  $("user").value = user;
  document.title = `${user} · PAPA playground`;
}

function known() {
  return JSON.parse(localStorage.getItem("papa-users") ?? "[]");
}

async function become(user) {
  page.unwatch();
  shopper.stop();
  Object.assign(page, { user, generation: null, state: null, before: null });
  remember(user);
  rounds = new Rounds(user);
  history = new History($("history"), goBack);
  $("history").replaceChildren();
  draw($("curve"), rounds.rounds);
  page.unwatch = watch(user, changed, refuse);
  await next();
}

$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = $("user").value.trim();
  if (user && user !== page.user) become(user);
});
$("next").addEventListener("click", next);
$("compare").addEventListener("click", compare);
$("reset").addEventListener("click", forget);
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask($("prompt").value.trim());
});
// Single letters act on the items alone (WCAG 2.1.4): elsewhere they may be part of a word.
$("grid").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key.toLowerCase() === "n") next();
  if (event.key.toLowerCase() === "b") compare();
});

try {
  const about = await get("about");
  page.perPage = about.per_page;
  $("ask").hidden = !about.prompts;
  shopper.offer(about.labels);
} catch (error) {
  refuse(error);
}
const asked = new URLSearchParams(location.search).get("user");
await become(asked || known()[0] || `guest-${eventId().slice(-6)}`);

// The page: one user, one grid, and what becomes of each rating.

import { eventId, get, post, Refused, watch } from "./api.js";
import { draw, Rounds } from "./curve.js";
import { Grid } from "./grid.js";
import { History } from "./history.js";
import { away, Outage } from "./outage.js";
import { Reasons } from "./reasons.js";
import { Shopper } from "./shopper.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const KNOWN = 12;
const IDLE = 6000; // milliseconds after which ratings are sent though the grid is not finished
const page = { user: "", perPage: Number(document.body.dataset.perPage), generation: null, state: null, before: null, prompt: "", sending: 0, notice: "", unwatch: () => {} };

const viewer = new Viewer();
const reasons = new Reasons();
const grid = new Grid($("grid"), { rated: rate, enlarge: (item) => viewer.show(item, link(item)) });
const shopper = new Shopper({ button: $("shop"), field: $("taste"), hint: $("shopper-hint"), grid, settled, next });
const outage = new Outage({ changed: progress, back });
let history = new History($("history"), goBack);
let rounds = new Rounds("");
let waiting = []; // ratings that are to be sent: {user, item, rating}
let idle = 0;

function say(phase, text) {
  $("status").dataset.phase = phase;
  if ($("said").textContent !== text) $("said").textContent = text;
}

function refuse(error) {
  if (!(error instanceof Refused)) throw error;
  const text = away(error);
  if (text) return outage.begin(text);
  const later = error.retryAfter ? ` Try again in ${Math.ceil(error.retryAfter)} s.` : "";
  return say("error", `That did not work: ${error.message}.${later}`);
}

// After an outage: what was rated meanwhile is sent, and an empty page is filled.
function back() {
  progress();
  if (waiting.length) send();
  if (!page.generation) next();
}

async function next() {
  send();
  const user = page.user;
  const prompt = page.prompt;
  page.before = null;
  page.generation = null;
  $("compare").setAttribute("aria-pressed", "false");
  grid.wait(page.perPage);
  reasons.show(null);
  // On a phone the button lies below the grid that it renews.
  if ($("status").getBoundingClientRect().bottom < 0) $("status").scrollIntoView();
  say("loading", "Making a new grid…");
  try {
    const made = await post("generate", { user, count: page.perPage, prompt });
    if (user !== page.user || prompt !== page.prompt) return;
    page.generation = made;
    grid.show(made.items);
    reasons.show(made);
    read(made.prompt_reading);
    progress();
  } catch (error) {
    if (user !== page.user) return;
    refuse(error);
    grid.fail("No pictures came.", next);
  }
}

function votes(items) {
  return items.filter((item) => item.vote).length;
}

function progress() {
  const items = page.generation?.items ?? [];
  const rated = votes(items);
  document.documentElement.style.setProperty("--done", `${(100 * rated) / Math.max(1, items.length)}%`);
  const pending = (page.state?.pending_events ?? 0) + page.sending;
  const current = page.state?.current_revision?.name ?? "";
  if (outage.text) {
    const kept = waiting.length ? " Your ratings are kept." : "";
    say("error", `${outage.text}. It is tried again until it does.${kept}`);
  } else if (!page.generation) return;
  else if (page.notice) say("ready", page.notice);
  else if (pending) say("learning", `Learning from ${pending} rating${pending === 1 ? "" : "s"}…`);
  else if (comparing()) say("ready", "The same seeds, made by the backbone alone. A rating here is of what you see here.");
  else if (current !== page.generation.revision) say("ready", "It has learnt something new. Press New grid to see it.");
  else if (rated) say("rating", `${rated} of ${items.length} rated.`);
  else say("rating", current ? "Made by your own adapter. Like or dislike what you see." : "Made by the backbone. Like or dislike what you see.");
}

function rate(item, grade) {
  page.notice = "";
  const { items, generation } = page.generation;
  if (items.includes(item)) {
    reasons.rated();
    rounds.record(generation, items.filter((each) => each.vote > 0).length, votes(items));
    draw($("curve"), rounds.rounds);
  }
  // A changed mind replaces what was not sent yet. A whole grid goes at once, so that it becomes one update.
  waiting = waiting.filter((each) => each.item !== item);
  waiting.push({ user: page.user, item, rating: { event_id: eventId(), item_id: item.id, grade } });
  clearTimeout(idle);
  idle = setTimeout(send, votes(grid.items) === grid.items.length ? 0 : IDLE);
  progress();
}

// Sends what waits, one user's ratings at a time. What an outage stops waits on: its event ids make a second sending harmless.
async function send() {
  const user = waiting[0]?.user;
  const sent = waiting.filter((each) => each.user === user);
  waiting = waiting.filter((each) => each.user !== user);
  clearTimeout(idle);
  if (!sent.length) return;
  page.sending += sent.length;
  try {
    const { outcomes } = await post("feedback", { user, ratings: sent.map((each) => each.rating) });
    const refused = outcomes.filter((outcome) => outcome.reason);
    for (const outcome of refused) takeBack(sent.find((each) => each.rating.event_id === outcome.event_id));
    const state = user === page.user && page.state ? await get("user", { user }) : null;
    page.sending -= sent.length;
    if (state && user === page.user) changed(state);
    if (refused.length) refuse(new Refused(refused[0]));
  } catch (error) {
    page.sending -= sent.length;
    if (error instanceof Refused && away(error)) waiting = [...sent, ...waiting];
    else sent.forEach(takeBack);
    refuse(error);
    return;
  }
  if (waiting.length) send();
}

function takeBack({ item, rating }) {
  grid.unvote(item, rating.grade);
  reasons.rated();
}

function changed(state) {
  const before = page.state?.current_revision?.name ?? "";
  page.state = state;
  const current = state.current_revision?.name ?? "";
  $("likes").textContent = state.likes;
  $("dislikes").textContent = state.dislikes;
  $("pending").textContent = state.pending_events;
  if (current !== before || !$("history").children.length) showHistory(current);
  progress();
  const items = page.generation?.items ?? [];
  const done = items.length && votes(items) === items.length;
  if (done && settled() && !comparing() && current !== page.generation.revision && !shopper.running) next();
}

function showHistory(current) {
  history.show(page.user, current, page.prompt).catch(refuse);
}

// The backbone's own words, each of which asks for itself.
function offerWords(words) {
  $("words").hidden = !words.length;
  $("words").replaceChildren(...words.map((word) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = "quiet";
    chip.textContent = word;
    chip.addEventListener("click", () => {
      $("prompt").value = word;
      ask(word);
    });
    return chip;
  }));
  if (words.length) $("prompt").placeholder = `${words[0]}, ${words.at(-2)}…`;
}

// Says what was made of the prompt, where it was not taken word for word.
function read(reading) {
  const quoted = (words) => words.map((word) => `“${word}”`).join(", ");
  const taken = Object.entries(reading?.read_as ?? {}).map(([said, word]) => `“${said}” was read as “${word}”.`);
  const unknown = reading?.unknown_words ?? [];
  const left = unknown.length ? [`The backbone does not know ${quoted(unknown)}: left out.`] : [];
  const nothing = reading && !reading.prompt ? ["So these pictures follow no prompt."] : [];
  $("reading").textContent = [...taken, ...left, ...nothing].join(" ");
  $("reading").hidden = !reading;
}

// What all items are to show from now on, those of the revisions' strips as well.
async function ask(prompt) {
  page.prompt = prompt;
  history.forget();
  showHistory(page.state?.current_revision?.name ?? "");
  await next();
}

// Whether everything that was rated is learnt.
function settled() {
  return !waiting.length && page.sending === 0 && (page.state?.pending_events ?? 0) === 0;
}

function comparing() {
  return $("compare").getAttribute("aria-pressed") === "true";
}

// The same seeds without the adapter: items of their own, so that a rating is of the picture that is seen.
async function compare() {
  const after = page.generation?.items;
  if (!after?.length) return;
  if (comparing()) {
    grid.show(after);
    reasons.show(page.generation);
    $("compare").setAttribute("aria-pressed", "false");
    progress();
    return;
  }
  try {
    page.before ??= (await post("generate", {
      user: page.user, count: after.length, seed: after[0].seed, revision: "base", prompt: page.prompt,
    })).items;
    if (page.generation?.items !== after) return;
    grid.show(page.before, "before");
    reasons.show(null);
    $("compare").setAttribute("aria-pressed", "true");
    progress();
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

// `revision` "" is the backbone.
async function goBack(revision, label) {
  const text = revision
    ? "It serves from now on, and the next update builds on it. Later revisions are kept."
    : "It serves from now on, and the next update starts from it. All revisions are kept.";
  if (!(await sure(`Go back to ${label.toLowerCase()}?`, text, "Go back"))) return;
  try {
    changed(await post(revision ? "rollback" : "reset", { user: page.user, revision }));
    await next();
  } catch (error) {
    refuse(error);
  }
}

async function remove() {
  const user = page.user;
  const text = "Your ratings, your items and every revision are deleted for good, and the name cannot be used again for a while. You go on as a new guest.";
  if (!(await sure(`Delete everything about ${user}?`, text, "Delete"))) return;
  try {
    const receipt = await post("delete", { user });
    rounds.clear();
    localStorage.setItem("papa-users", JSON.stringify(known().filter((each) => each !== user)));
    await become(guest());
    // Stays until something else is done: nobody should have to be quick to read a receipt.
    page.notice = `${user} is deleted: ${receipt.revisions} revisions, ${receipt.items} items, ${receipt.events} waiting ratings. Receipt ${receipt.receipt_id}.`;
    progress();
  } catch (error) {
    refuse(error);
  }
}

// The address of this page that draws one item again.
function link(item) {
  const url = new URL(location.href);
  const revision = item.served_by === "base" ? "base" : page.generation?.revision || "base";
  url.search = new URLSearchParams({ user: page.user, seed: item.seed, revision, prompt: page.prompt });
  return url.href;
}

async function showLinked(asked, link) {
  try {
    const { items } = await post("generate", {
      user: page.user, count: 1, seed: asked.get("seed"), revision: asked.get("revision") || "base", prompt: asked.get("prompt") ?? "",
    });
    viewer.show(items[0], link);
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

// The address names the user, so that a page that is loaded again is theirs. A link to an item of theirs stays.
function locate(user) {
  if (new URLSearchParams(location.search).get("user") === user) return;
  window.history.replaceState(null, "", `?${new URLSearchParams({ user })}`);
}

function known() {
  return JSON.parse(localStorage.getItem("papa-users") ?? "[]");
}

function guest() {
  return `guest-${eventId().slice(-6)}`;
}

async function become(user) {
  send();
  page.unwatch();
  shopper.stop();
  Object.assign(page, { user, generation: null, state: null, before: null });
  remember(user);
  locate(user);
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
  if (!user || user === page.user) return;
  page.notice = "";
  become(user);
});
addEventListener("pagehide", send);
$("next").addEventListener("click", () => {
  page.notice = "";
  next();
});
$("compare").addEventListener("click", compare);
$("remove").addEventListener("click", remove);
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask($("prompt").value.trim());
});
// Letters act anywhere but where text is typed; who dictates or uses a switch can turn them off (WCAG 2.1.4).
$("letters").checked = localStorage.getItem("papa-letters") !== "off";
$("letters").addEventListener("change", () => localStorage.setItem("papa-letters", $("letters").checked ? "on" : "off"));
document.addEventListener("keydown", (event) => {
  if (!$("letters").checked || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog")) return;
  const act = { l: () => grid.letter(1), d: () => grid.letter(-1), n: next, b: compare }[event.key.toLowerCase()];
  act?.();
});

grid.wait(page.perPage);
try {
  const about = await get("about");
  $("ask").hidden = !about.prompts;
  offerWords(about.vocabulary);
  shopper.offer(about.labels);
} catch (error) {
  refuse(error);
}
const opened = location.href;
const asked = new URLSearchParams(location.search);
await become(asked.get("user") || known()[0] || guest());
if (asked.has("seed")) await showLinked(asked, opened);

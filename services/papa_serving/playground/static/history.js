// The lineage: one line a revision with what it makes of the same six seeds.

import { get, post } from "./api.js";

const SEED = "4242";
const STRIP = 6;

const clock = (moment) => new Date(moment).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });

export class History {
  constructor(list, back) {
    this.list = list;
    this.back = back; // (revision)
    this.strips = new Map();
    this.asked = 0;
  }

  // What the strips are to show has changed.
  forget() {
    this.strips.clear();
  }

  async show(user, current, prompt) {
    const asked = ++this.asked;
    const { revisions } = await get("revisions", { user });
    if (asked !== this.asked) return;
    const base = { revision: "", label: "The backbone", note: "before any like" };
    const lines = revisions.map((each) => ({
      revision: each.name,
      label: `Revision ${Number.parseInt(each.name, 10)}`,
      note: `${each.events_total} ratings, ${clock(each.created_at)}`,
    }));
    this.list.replaceChildren(...[...lines, base].map((line) => this.#line(line, current)));
    for (const line of [...lines, base]) {
      if (asked !== this.asked) return;
      await this.#strip(user, line.revision, prompt, () => asked === this.asked);
    }
  }

  #line({ revision, label, note }, current) {
    const row = document.createElement("li");
    row.dataset.revision = revision;
    row.innerHTML = '<span class="strip"></span><span><strong></strong><time></time></span>';
    row.querySelector("strong").textContent = label;
    row.querySelector("time").textContent = note;
    this.#fill(row, this.strips.get(revision));
    if (revision === current) {
      row.className = "current";
      row.insertAdjacentHTML("beforeend", '<span class="now">serving</span>');
    } else {
      const button = document.createElement("button");
      button.textContent = "Go back";
      button.setAttribute("aria-label", `Go back to ${label.toLowerCase()}`);
      button.addEventListener("click", () => this.back(revision, label));
      row.append(button);
    }
    return row;
  }

  async #strip(user, revision, prompt, wanted) {
    if (this.strips.has(revision)) return;
    const made = await post("generate", { user, count: STRIP, seed: SEED, revision: revision || "base", prompt });
    if (!wanted()) return;
    this.strips.set(revision, made.items.map((item) => item.image));
    for (const row of this.list.children) if (row.dataset.revision === revision) this.#fill(row, this.strips.get(revision));
  }

  #fill(row, images) {
    if (!images) return;
    row.querySelector(".strip").replaceChildren(...images.map((source) => {
      const image = document.createElement("img");
      image.src = source;
      image.alt = "";
      return image;
    }));
  }
}

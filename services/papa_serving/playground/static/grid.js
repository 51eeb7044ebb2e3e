// The grid of items: pictures, buttons, keys and swipes.

const SWIPE = 56;
const ICONS = {
  no: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M6 6l12 12M18 6L6 18"/></svg>',
  large: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5"/></svg>',
  yes: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 20s-7.5-4.6-7.5-10A4.2 4.2 0 0 1 12 7.3 4.2 4.2 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z"/></svg>',
};

const percent = (item) => `${Math.round(100 * item.like_probability)} %`;

export class Grid {
  constructor(list, { rated, enlarge }) {
    this.list = list;
    this.rated = rated; // (item, grade)
    this.enlarge = enlarge; // (item)
    this.items = [];
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  wait(count) {
    // Who was among the items is there again once the new ones come.
    if (this.list.contains(document.activeElement)) this.list.focus();
    this.items = [];
    this.list.setAttribute("aria-busy", "true");
    this.list.replaceChildren(...Array.from({ length: count }, () => {
      const tile = document.createElement("li");
      tile.className = "item";
      tile.innerHTML = '<div class="blank"></div><div class="vote"></div>';
      return tile;
    }));
  }

  // An item carries its vote, so that a grid that is shown again is as it was left. `badge` is written on each picture.
  show(items, badge = "") {
    const focused = this.#focused();
    for (const item of items) item.vote ??= 0;
    this.items = items;
    this.list.removeAttribute("aria-busy");
    this.list.replaceChildren(...items.map((item, index) => this.#tile(item, index, badge)));
    items.forEach((_, index) => this.#mark(index));
    if (this.list === document.activeElement) this.#focus(0);
    else if (focused >= 0) this.#focus(focused);
  }

  // Instead of items: why there are none, and a button that asks again.
  fail(text, again) {
    this.items = [];
    this.list.removeAttribute("aria-busy");
    const empty = document.createElement("li");
    empty.className = "empty";
    empty.innerHTML = '<p></p><button type="button" class="primary">Try again</button>';
    empty.querySelector("p").textContent = text;
    empty.querySelector("button").addEventListener("click", again);
    this.list.replaceChildren(empty);
  }

  vote(index, grade) {
    const item = this.items[index];
    if (!item || item.vote === grade) return;
    item.vote = grade;
    this.#mark(index);
    this.rated(item, grade);
  }

  // A letter key: rates the item that has the focus, else the one under the pointer, else the first that is not rated.
  letter(grade) {
    const focused = this.#focused();
    const hovered = [...this.list.children].findIndex((tile) => tile.matches(":hover"));
    const unrated = this.items.findIndex((item) => !item.vote);
    const index = [focused, hovered, unrated].find((each) => each >= 0);
    if (index === undefined) return;
    this.vote(index, grade);
    if (focused >= 0) this.#focus(index + 1);
  }

  // Takes a refused vote back, unless another came after it.
  unvote(item, grade) {
    if (item.vote !== grade) return;
    item.vote = 0;
    const index = this.items.indexOf(item);
    if (index >= 0) this.#mark(index);
  }

  #tile(item, index, badge) {
    const tile = document.createElement("li");
    tile.className = "item";
    tile.tabIndex = index ? -1 : 0;
    tile.setAttribute("aria-label", this.#label(item, index));
    const image = document.createElement("img");
    image.src = item.image;
    image.alt = "";
    image.draggable = false;
    tile.append(image);
    const note = badge || (item.exploring ? "exploring" : "");
    if (note) tile.insertAdjacentHTML("beforeend", `<span class="badge">${note}</span>`);
    if (item.like_probability !== null) tile.append(this.#chance(item));
    tile.insertAdjacentHTML("beforeend",
      `<button type="button" class="large" tabindex="-1" aria-label="Enlarge item ${index + 1}">${ICONS.large}</button>`);
    tile.querySelector(".large").addEventListener("click", () => this.enlarge(item));
    tile.insertAdjacentHTML("beforeend", `<div class="vote">
      <button type="button" class="no" tabindex="-1" aria-pressed="false" aria-label="Dislike item ${index + 1}">${ICONS.no}</button>
      <button type="button" class="yes" tabindex="-1" aria-pressed="false" aria-label="Like item ${index + 1}">${ICONS.yes}</button></div>`);
    tile.querySelector(".no").addEventListener("click", () => this.vote(index, -1));
    tile.querySelector(".yes").addEventListener("click", () => this.vote(index, 1));
    this.#swipe(tile, index);
    return tile;
  }

  #chance(item) {
    const chance = document.createElement("span");
    chance.className = "chance";
    chance.textContent = percent(item);
    chance.title = "The chance that you like it, by your ratings so far";
    return chance;
  }

  #label(item, index) {
    const said = item.vote > 0 ? ", liked" : item.vote < 0 ? ", disliked" : ", not rated";
    const chance = item.like_probability === null ? "" : `, ${percent(item)} likely to be liked`;
    return `Item ${index + 1} of ${this.items.length}${said}${chance}${item.exploring ? ", exploring" : ""}`;
  }

  #mark(index) {
    const item = this.items[index];
    const tile = this.list.children[index];
    tile.dataset.vote = item.vote > 0 ? "like" : item.vote < 0 ? "dislike" : "";
    tile.setAttribute("aria-label", this.#label(item, index));
    tile.querySelector(".yes").setAttribute("aria-pressed", String(item.vote > 0));
    tile.querySelector(".no").setAttribute("aria-pressed", String(item.vote < 0));
  }

  #swipe(tile, index) {
    let from = null;
    tile.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" && !event.target.closest("button")) from = event.clientX;
    });
    tile.addEventListener("pointermove", (event) => {
      if (from !== null) tile.style.transform = `translateX(${event.clientX - from}px)`;
    });
    const end = (event) => {
      if (from === null) return;
      const moved = event.clientX - from;
      from = null;
      tile.style.transform = "";
      if (event.type === "pointerup" && Math.abs(moved) > SWIPE) this.vote(index, Math.sign(moved));
    };
    tile.addEventListener("pointerup", end);
    tile.addEventListener("pointercancel", end);
  }

  #key(event) {
    const index = this.#focused();
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (event.key in moves) {
      event.preventDefault();
      this.#focus(index + moves[event.key]);
    } else if (event.key === "Enter" && event.target === this.list.children[index]) {
      this.enlarge(this.items[index]);
    }
  }

  #focused() {
    return [...this.list.children].findIndex((tile) => tile.contains(document.activeElement));
  }

  #focus(index) {
    const tile = this.list.children[index];
    if (!tile) return;
    for (const other of this.list.children) other.tabIndex = other === tile ? 0 : -1;
    tile.focus();
  }
}

// The grid of items: pictures, buttons, keys and swipes.

const SWIPE = 56;
const ICONS = {
  no: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M6 6l12 12M18 6L6 18"/></svg>',
  yes: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 20s-7.5-4.6-7.5-10A4.2 4.2 0 0 1 12 7.3 4.2 4.2 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z"/></svg>',
};

export class Grid {
  constructor(list, rated) {
    this.list = list;
    this.rated = rated; // (item, grade)
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
      tile.innerHTML = '<div class="blank"></div>';
      return tile;
    }));
  }

  show(items) {
    const focused = this.list.contains(document.activeElement);
    this.items = items.map((item) => ({ ...item, vote: 0 }));
    this.list.removeAttribute("aria-busy");
    this.list.replaceChildren(...this.items.map((item, place) => this.#tile(item, place)));
    if (focused) this.#focus(0);
  }

  // The same places with other pictures: what the backbone alone makes of the seeds, or again the items themselves.
  picture(images, badge) {
    this.items.forEach((item, place) => {
      const tile = this.list.children[place];
      tile.querySelector("img").src = images ? images[place] : item.image;
      tile.querySelector(".badge")?.remove();
      if (images) tile.insertAdjacentHTML("beforeend", `<span class="badge">${badge}</span>`);
    });
  }

  vote(place, grade) {
    const item = this.items[place];
    if (!item || item.vote === grade) return;
    item.vote = grade;
    this.#mark(place);
    this.rated(item, grade);
  }

  // Takes a refused vote back, unless another came after it.
  unvote(itemId, grade) {
    const place = this.items.findIndex((item) => item.id === itemId && item.vote === grade);
    if (place < 0) return;
    this.items[place].vote = 0;
    this.#mark(place);
  }

  get votes() {
    return this.items.filter((item) => item.vote).length;
  }

  get likes() {
    return this.items.filter((item) => item.vote > 0).length;
  }

  #tile(item, place) {
    const tile = document.createElement("li");
    tile.className = "item";
    tile.tabIndex = place ? -1 : 0;
    tile.setAttribute("aria-label", this.#label(item, place));
    const image = document.createElement("img");
    image.src = item.image;
    image.alt = "";
    image.draggable = false;
    tile.append(image);
    tile.insertAdjacentHTML("beforeend", `<div class="vote">
      <button type="button" class="no" tabindex="-1" aria-pressed="false" aria-label="Dislike item ${place + 1}">${ICONS.no}</button>
      <button type="button" class="yes" tabindex="-1" aria-pressed="false" aria-label="Like item ${place + 1}">${ICONS.yes}</button></div>`);
    tile.querySelector(".no").addEventListener("click", () => this.vote(place, -1));
    tile.querySelector(".yes").addEventListener("click", () => this.vote(place, 1));
    this.#swipe(tile, place);
    return tile;
  }

  #label(item, place) {
    const said = item.vote > 0 ? ", liked" : item.vote < 0 ? ", disliked" : ", not rated";
    return `Item ${place + 1} of ${this.items.length}${said}`;
  }

  #mark(place) {
    const item = this.items[place];
    const tile = this.list.children[place];
    tile.dataset.vote = item.vote > 0 ? "like" : item.vote < 0 ? "dislike" : "";
    tile.setAttribute("aria-label", this.#label(item, place));
    tile.querySelector(".yes").setAttribute("aria-pressed", String(item.vote > 0));
    tile.querySelector(".no").setAttribute("aria-pressed", String(item.vote < 0));
  }

  #swipe(tile, place) {
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
      if (event.type === "pointerup" && Math.abs(moved) > SWIPE) this.vote(place, Math.sign(moved));
    };
    tile.addEventListener("pointerup", end);
    tile.addEventListener("pointercancel", end);
  }

  #key(event) {
    const place = [...this.list.children].findIndex((tile) => tile.contains(event.target));
    if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (event.key in moves) {
      event.preventDefault();
      this.#focus(place + moves[event.key]);
    } else if (event.key.toLowerCase() === "l" || event.key.toLowerCase() === "d") {
      this.vote(place, event.key.toLowerCase() === "l" ? 1 : -1);
      this.#focus(place + 1);
    }
  }

  #focus(place) {
    const tile = this.list.children[place];
    if (!tile) return;
    for (const other of this.list.children) other.tabIndex = other === tile ? 0 : -1;
    tile.focus();
  }
}

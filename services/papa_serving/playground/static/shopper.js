// A simulated shopper: asks the server what it thinks of the grid, and rates it as a person would, one item at a time.

import { post } from "./api.js";

const LOOK = 160; // milliseconds an item
const DEFAULT = [5, 7, 9];
const ROUNDS = 12;

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export class Shopper {
  constructor({ button, field, hint, grid, settled, next }) {
    Object.assign(this, { button, field, hint, grid, settled, next, running: false });
    button.addEventListener("click", () => (this.running ? this.stop() : this.start()));
  }

  offer(labels) {
    this.button.disabled = !labels.length;
    if (!labels.length) {
      this.hint.textContent = "Not available: it needs torch beside the page, and a backbone that an oracle is shipped for.";
      return;
    }
    this.field.append(...labels.map((label, index) => {
      const chip = document.createElement("label");
      chip.className = "chip";
      chip.innerHTML = `<input type="checkbox" value="${index}"><span></span>`;
      chip.querySelector("span").textContent = label;
      chip.querySelector("input").checked = DEFAULT.includes(index);
      return chip;
    }));
  }

  stop() {
    if (!this.running) return;
    this.hint.textContent = "The shopper was stopped.";
    this.#end();
  }

  #end() {
    this.running = false;
    this.button.textContent = "Start the shopper";
  }

  async start() {
    const taste = [...this.field.querySelectorAll("input:checked")].map((input) => Number(input.value));
    if (!taste.length) {
      this.hint.textContent = "Choose at least one kind of item.";
      return;
    }
    this.running = true;
    this.button.textContent = "Stop the shopper";
    // A shopper that was stopped may still wait for an answer when another one starts.
    const visit = (this.visit = {});
    const here = () => this.running && this.visit === visit;
    try {
      for (let round = 1; here() && round <= ROUNDS; round += 1) {
        this.hint.textContent = `Round ${round} of ${ROUNDS}`;
        await this.#rate(taste, here);
        while (here() && !this.settled()) await pause(100);
        if (here()) await this.next();
      }
      if (here()) this.hint.textContent = "The shopper has finished.";
    } catch (error) {
      if (here()) this.hint.textContent = `The shopper has stopped: ${error.message}.`;
    }
    if (here()) this.#end();
  }

  async #rate(taste, here) {
    while (here() && !this.grid.items.length) await pause(100);
    if (!here()) return;
    const { likes } = await post("judge", { item_ids: this.grid.items.map((item) => item.id), taste });
    for (let index = 0; here() && index < likes.length; index += 1) {
      this.grid.vote(index, likes[index] ? 1 : -1);
      await pause(LOOK);
    }
    await pause(300);
  }
}

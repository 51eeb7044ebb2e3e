// Why these items: how many of them the model expects to be liked, how sure it is, what explores, and what they took.

const $ = (id) => document.getElementById(id);
const UNKNOWN = "–";
const percent = (share) => `${Math.round(100 * share)} %`;

export class Reasons {
  // `made` is a generation; null while there is none, or while what is shown was made by the backbone alone.
  show(made) {
    this.known = Boolean(made);
    this.items = made?.items ?? [];
    const chances = this.#guessed().map((item) => item.like_probability);
    const sum = (numbers) => numbers.reduce((total, each) => total + each, 0);
    const known = chances.length > 0;
    $("expected").textContent = known ? `${sum(chances).toFixed(1)} of ${chances.length}` : UNKNOWN;
    // The model's own chance of a right guess, on average: one half is a coin.
    $("sureness").textContent = known ? percent(sum(chances.map((each) => Math.max(each, 1 - each))) / chances.length) : UNKNOWN;
    $("exploring").textContent = made ? `${this.items.filter((item) => item.exploring).length} of ${this.items.length}` : UNKNOWN;
    $("draws").textContent = made && this.items.length ? `${(made.drawn / this.items.length).toFixed(1)} (${percent(made.acceptance)} kept)` : UNKNOWN;
    this.rated();
  }

  // An item was rated: says how well the model guessed.
  rated() {
    const told = this.#guessed().filter((item) => item.vote);
    const right = told.filter((item) => item.vote > 0 === item.like_probability >= 0.5).length;
    if (!this.known) $("reason").textContent = "";
    else if (told.length) $("reason").textContent = `It guessed ${right} of ${told.length} rated items right.`;
    else if (this.#guessed().length) $("reason").textContent = "The percentage on an item is the chance that you like it, by your ratings so far.";
    else $("reason").textContent = "It cannot tell yet what you like: rate some items up and some down.";
  }

  #guessed() {
    return this.items.filter((item) => item.like_probability !== null);
  }
}

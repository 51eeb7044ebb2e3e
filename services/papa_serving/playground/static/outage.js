// A service that does not answer: says so in plain words, asks until it is back, and then goes on.

import { get } from "./api.js";

const AGAIN = 1500; // milliseconds between two questions
const AWAY = {
  UNREACHABLE: "This page has lost its server",
  CALL_FAILED: "The service does not answer",
  DEADLINE_EXCEEDED: "The service takes too long to answer",
  GENERATOR_UNAVAILABLE: "The service cannot make pictures at the moment",
  SHUTTING_DOWN: "The service is being restarted",
  STORAGE_UNAVAILABLE: "The service cannot reach its storage",
};

// Why nothing can be done just now; undefined where trying again would change nothing.
export const away = (error) => AWAY[error.reason];

export class Outage {
  constructor({ changed, back }) {
    Object.assign(this, { changed, back, text: "", timer: 0 });
  }

  begin(text) {
    this.text = text;
    this.changed();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), AGAIN);
  }

  async #ask() {
    const about = await get("about").catch(() => null);
    if (!about?.serving) return this.begin(this.text);
    this.text = "";
    this.back();
  }
}

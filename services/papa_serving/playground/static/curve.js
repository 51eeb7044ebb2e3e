// The share of likes, grid by grid, as an SVG line; rounds are kept by this browser.

const KEEP = 60;
const BOX = { left: 30, right: 314, top: 8, bottom: 104 };

export class Rounds {
  constructor(user) {
    this.key = `papa-rounds:${user}`;
    try {
      this.rounds = JSON.parse(localStorage.getItem(this.key)) ?? [];
    } catch {
      this.rounds = [];
    }
  }

  record(generation, likes, votes) {
    const found = this.rounds.find((round) => round.generation === generation);
    if (found) Object.assign(found, { likes, votes });
    else this.rounds.push({ generation, likes, votes });
    this.rounds = this.rounds.slice(-KEEP);
    this.#keep();
  }

  clear() {
    this.rounds = [];
    this.#keep();
  }

  #keep() {
    localStorage.setItem(this.key, JSON.stringify(this.rounds));
  }
}

export function draw(svg, rounds) {
  const shares = rounds.filter((round) => round.votes).map((round) => round.likes / round.votes);
  const step = (BOX.right - BOX.left) / Math.max(1, shares.length - 1);
  const points = shares.map((share, index) => [BOX.left + index * step, BOX.bottom - share * (BOX.bottom - BOX.top)]);
  const lines = [0, 0.5, 1].map((share) => {
    const y = BOX.bottom - share * (BOX.bottom - BOX.top);
    return `<line class="axis" x1="${BOX.left}" x2="${BOX.right}" y1="${y}" y2="${y}"/>
      <text x="${BOX.left - 5}" y="${y + 4}" text-anchor="end">${share * 100}%</text>`;
  });
  const path = points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const dots = points.map(([x, y]) => `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3.5"/>`).join("");
  svg.innerHTML = `${lines.join("")}<path d="${path}"/>${dots}`;
  const last = shares.at(-1);
  svg.setAttribute("aria-label", shares.length
    ? `${shares.length} grids rated; ${Math.round(shares[0] * 100)} percent liked in the first, ${Math.round(last * 100)} in the last`
    : "No grids rated yet");
}

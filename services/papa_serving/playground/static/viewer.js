// One picture, large: to look at, to keep, or to show to somebody by a link that draws it again.

const $ = (id) => document.getElementById(id);

export class Viewer {
  constructor() {
    $("share").addEventListener("click", () => this.#share());
  }

  show(item, link) {
    this.link = link;
    $("large-image").src = item.image;
    $("large-image").alt = `Item ${item.id}`;
    $("download").href = item.image;
    $("download").download = `papa-${item.id}.png`;
    $("shared").textContent = "";
    $("large").showModal();
  }

  async #share() {
    try {
      if (navigator.share) await navigator.share({ url: this.link });
      else await navigator.clipboard.writeText(this.link);
      $("shared").textContent = navigator.share ? "" : "The link is copied.";
    } catch (error) {
      // A page without https has no clipboard, and a person may close the share sheet.
      if (error.name !== "AbortError") $("shared").textContent = this.link;
    }
  }
}

// The endpoints of this page's own server; each is one gRPC call behind it.

// Beside this file's folder, so that the page works under any path that a proxy gives it.
const API = new URL("../api/", import.meta.url);

function endpoint(path, query) {
  const url = new URL(path, API);
  url.search = new URLSearchParams(query);
  return url;
}

export class Refused extends Error {
  constructor(error) {
    super(error.message);
    this.reason = error.reason;
    this.retryAfter = error.retry_after;
  }
}

async function answer(response) {
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  throw new Refused(body?.error ?? { reason: "UNREACHABLE", message: "the playground's server does not answer" });
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new Refused({ reason: "UNREACHABLE", message: "the playground's server does not answer" });
  }
}

export async function get(path, query = {}) {
  return answer(await reach(endpoint(path, query)));
}

export async function post(path, body) {
  const headers = { "content-type": "application/json", "x-papa-playground": "1" };
  return answer(await reach(endpoint(path, {}), { method: "POST", headers, body: JSON.stringify(body), keepalive: true }));
}

// Calls back with the user's state now and after each change; returns a function that ends it.
export function watch(user, changed, lost) {
  const source = new EventSource(endpoint("watch", { user }));
  source.onmessage = (event) => changed(JSON.parse(event.data));
  // The browser asks again by itself, after a refusal too: a service that is started anew is found again.
  source.addEventListener("refused", (event) => lost(new Refused(JSON.parse(event.data))));
  return () => source.close();
}

// A name for an event that nobody else gives; randomUUID exists on secure origins only.
export function eventId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** The service's HTTP contract. Knows nothing of the page: answers are plain objects, failures ServiceError. */
import { keptKey } from "./key.js";

const root = new URL("../", import.meta.url); // relative, so that the page works behind a path prefix too

export class ServiceError extends Error {
  /**
   * `status` 0: no answer at all. `message` is the service's own and may carry the caller's values.
   * `retrySeconds`: after how long the service asks to be tried again; null where it does not say.
   */
  constructor(status, code, message, retrySeconds = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retrySeconds = retrySeconds;
  }
}

/** Ids are the gallery's relative paths: slashes stay, everything else is encoded (spaces, `#`, `?`, unicode). */
const pathOf = (id) => id.split("/").map(encodeURIComponent).join("/");

export const imageAddress = (id, sidePixels) =>
  new URL(`images/${pathOf(id)}${sidePixels ? `?side=${sidePixels}` : ""}`, root).href;

const authorization = () => (keptKey() ? { authorization: `Bearer ${keptKey()}` } : {});

function retrySecondsOf(response) {
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
}

async function call(path, { headers, ...options } = {}) {
  let response;
  try {
    response = await fetch(new URL(path, root), { ...options, headers: { ...headers, ...authorization() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "unreachable", "The service gave no answer.");
  }
  if (response.status === 204) return null;
  const body = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (response.ok && body) return body;
  const failure = body?.error ?? {};
  throw new ServiceError(
    response.status,
    failure.code ?? "no_answer",
    failure.message ?? `The service answered ${response.status} without saying why.`,
    retrySecondsOf(response),
  );
}

const post = (path, body, signal) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

/** `page` is {k, offset, in, filter}; `filter` in the service's form, or undefined. */
export const searchText = (query, page, signal) => post("search/text", { query, ...page }, signal);

export const searchItem = (id, page, signal) => post("search/item", { id, ...page }, signal);

export function searchImage(image, { filter, ...page }, signal) {
  const fields = new URLSearchParams(page);
  if (filter) fields.set("filter", JSON.stringify(filter));
  return call(`search/image?${fields}`, {
    method: "POST",
    headers: { "content-type": image.type },
    body: image,
    signal,
  });
}

/** Answers in the order of `texts`: {results, verdict} each, or {error}. */
export const searchTexts = (texts, page) =>
  post("search/batch", { queries: texts.map((text) => ({ text })), ...page });

export const fetchItem = (id, signal) => call(`items/${pathOf(id)}`, { signal });

export const fetchFields = () => call("fields");

/** `details`: with how the release and its encoder were checked, under the same name. */
export const fetchRelease = ({ details = false } = {}) => call(details ? "release?details=true" : "release");

export const fetchDrift = () => call("drift");

/** Where keys are on, <img> needs a cookie, as it can send no header; the service gives it for the key. */
export const openImages = () => call("images/pass", { method: "POST" });

/** The service's HTTP contract. Knows nothing of the page: answers are plain objects, failures ServiceError. */

const root = new URL("../", import.meta.url); // relative, so that the page works behind a path prefix too

export class ServiceError extends Error {
  /** `status` 0: no answer at all. `message` is the service's own and may carry the caller's values. */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Ids are the gallery's relative paths: slashes stay, everything else is encoded (spaces, `#`, `?`, unicode). */
const pathOf = (id) => id.split("/").map(encodeURIComponent).join("/");

export const pictureAddress = (id, sidePixels) =>
  new URL(`images/${pathOf(id)}${sidePixels ? `?side=${sidePixels}` : ""}`, root).href;

async function call(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, root), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "unreachable", "The service gave no answer.");
  }
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
  );
}

const post = (path, body, signal) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

/** `page` is {k, offset, in}. */
export const searchText = (query, page, signal) => post("search/text", { query, ...page }, signal);

export const searchItem = (id, page, signal) => post("search/item", { id, ...page }, signal);

export const searchPicture = (picture, page, signal) =>
  call(`search/image?${new URLSearchParams(page)}`, {
    method: "POST",
    headers: { "content-type": picture.type },
    body: picture,
    signal,
  });

export const fetchItem = (id, signal) => call(`items/${pathOf(id)}`, { signal });

export const fetchRelease = () => call("release", {});

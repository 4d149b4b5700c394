/** Errors as kind notices: what happened, what to do, and the service's own words. */
import { ServiceError } from "./api.js";
import { html, svg } from "./elements.js";

const FEWEST_SECONDS = 1;
const MOST_SECONDS = 60; // of waiting for an automatic try; a service that asks for more is asked by hand

/** The image of an address that another tab, device or time holds. */
export const imageGone = () =>
  new ServiceError(0, "image_gone", "The address names an image that this tab does not hold.");

export const notAnImage = (why) => new ServiceError(0, "not_an_image", why);

export const isAboutKeys = (error) => error.status === 401;

const isOffline = (error) => error.status === 0 && navigator.onLine === false;

const ADVICE = [
  // [whether it is this one, heading, what to do, whether trying again can help]
  [(e) => e.code === "not_an_image", "That is not an image", "Drop, paste or choose an image file.", false],
  [(e) => e.code === "image_gone", "That image stayed behind", "An image you search with is never stored or shared, so this address alone cannot bring it back. Choose it again. To share what you found, open an answer and use “More like it”: that address works for everybody.", false],
  [isOffline, "You are offline", "The search goes on by itself as soon as the connection is back.", true],
  [(e) => e.status === 0, "The service cannot be reached", "It may be restarting, or the connection was lost. Wait a moment, then try again.", true],
  [(e) => e.status === 429, "Busy right now", "Many people are searching at once. There is nothing to do but wait a moment.", true],
  [(e) => e.status === 503 || e.status === 504, "Not ready yet", "The service is starting, stopping or very busy. It is usually back within a moment.", true],
  [(e) => e.status === 404, "Not in the gallery", "The gallery has changed since, or the address was cut. Search for it with words instead.", false],
  [(e) => e.status === 413, "That is too large", "Use a smaller image, or a shorter text.", false],
  [(e) => e.code.includes("image") || e.status === 415, "That image could not be read", "Save it as PNG or JPEG, then choose it again.", false],
  [isAboutKeys, "A key is needed", "This service answers only to those who have an API key. Ask whoever runs it for one.", false],
  [(e) => e.status === 403, "That is not allowed", "The key, or this page's address, may not do this. Ask whoever runs the service.", false],
  [(e) => e.status === 422 && e.message.startsWith("filter"), "That filter cannot be used", "Remove the filters, then search again.", false],
  [(e) => e.status === 422 || e.status === 400, "That could not be searched", "Change the words or the image, then search again.", false],
  [() => true, "Something went wrong", "Try again. If it stays so, the service's log says more.", true],
];

/**
 * `retry`, when given, is offered where trying again can help, and done by itself where the service says when
 * (`isPatient`: not any more, as it has been tried often enough). `onKey` takes the key that a visitor gives.
 * Anything but a ServiceError is our own fault.
 */
export function problemNotice(error, { retry, isPatient = true, onKey } = {}) {
  if (!(error instanceof ServiceError)) {
    console.error(error);
    return problemNotice(new ServiceError(-1, "page", `The page itself failed: ${error.message}`), { retry });
  }
  const [, heading, advice, canRetry] = ADVICE.find(([isThis]) => isThis(error));
  const isOffered = canRetry && retry;
  const wait = html("p", { class: "problem-wait", role: "timer", "aria-live": "off", hidden: "" });
  const words = html(
    "div",
    {},
    html("h2", {}, heading),
    html("p", { class: "problem-advice" }, advice),
    html("p", { class: "problem-message" }, error.message),
    wait,
    isAboutKeys(error) && onKey ? keyForm(onKey) : null,
    isOffered ? html("p", {}, retryButton(retry)) : null,
  );
  const notice = html("div", { class: "problem" }, sign(), words);
  if (isOffered && isPatient) retryInTime(notice, { wait, error, retry });
  return notice;
}

const sign = () =>
  svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("circle", { cx: 12, cy: 12, r: 9 }), svg("path", { d: "M12 7.5v5.5M12 16.4v.1" }));

function retryButton(retry) {
  const button = html("button", { type: "button", class: "secondary problem-retry" }, "Try again");
  button.addEventListener("click", () => retry());
  return button;
}

function keyForm(onKey) {
  const field = html("input", { type: "password", autocomplete: "off", spellcheck: "false", required: "" });
  const form = html(
    "form",
    { class: "problem-key" },
    html("label", {}, "API key ", field),
    html("button", { type: "submit", class: "primary" }, "Use this key"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onKey(field.value.trim());
  });
  return form;
}

function retryInTime(notice, { wait, error, retry }) {
  if (isOffline(error)) {
    addEventListener("online", () => notice.isConnected && retry(), { once: true });
    return;
  }
  if (error.retrySeconds === null || error.retrySeconds > MOST_SECONDS) return;
  const until = performance.now() + Math.max(FEWEST_SECONDS, error.retrySeconds) * 1000;
  wait.hidden = false;
  const draw = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    wait.textContent = `Trying again in ${Math.max(0, left)} s.`;
    return left > 0;
  };
  draw();
  const ticking = setInterval(() => {
    if (!notice.isConnected) clearInterval(ticking); // the visitor went on to something else
    else if (!draw()) {
      clearInterval(ticking);
      retry();
    }
  }, 250);
}

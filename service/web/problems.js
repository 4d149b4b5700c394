/** Errors as kind notices: what happened, what to do, and the service's own words. */
import { ServiceError } from "./api.js";
import { stamp } from "./views.js";

/** The picture of an address that another tab, device or time holds. */
export const pictureGone = () =>
  new ServiceError(0, "picture_gone", "The address names a picture that this tab does not hold.");

export const notAPicture = (why) => new ServiceError(0, "not_a_picture", why);

const ADVICE = [
  // [whether it is this one, heading, what to do, whether trying again can help]
  [(e) => e.code === "not_a_picture", "That is not a picture", "Drop, paste or choose a picture file.", false],
  [(e) => e.code === "picture_gone", "That picture stayed behind", "A picture you search with is never stored or shared, so this address alone cannot bring it back. Choose it again.", false],
  [(e) => e.status === 0, "The service cannot be reached", "It may be restarting, or the connection was lost. Wait a moment, then try again.", true],
  [(e) => e.status === 429, "Busy right now", "Many people are searching at once. Try again in a moment.", true],
  [(e) => e.status === 503 || e.status === 504, "Not ready yet", "The service is starting, stopping or very busy. Try again in a moment.", true],
  [(e) => e.status === 404, "Not in the gallery", "The gallery has changed since, or the address was cut. Search for it with words instead.", false],
  [(e) => e.status === 413, "That is too large", "Use a smaller picture, or a shorter text.", false],
  [(e) => e.code.includes("image") || e.status === 415, "That picture could not be read", "Save it as PNG or JPEG, then choose it again.", false],
  [(e) => e.status === 401, "A key is needed", "This service answers only with an API key, which this page does not have.", false],
  [(e) => e.status === 422 || e.status === 400, "That could not be searched", "Change the words or the picture, then search again.", false],
  [() => true, "Something went wrong", "Try again. If it stays so, the service's log says more.", true],
];

/** `retry`, when given, is offered where trying again can help. Anything but a ServiceError is our own fault. */
export function problemNotice(error, retry) {
  if (!(error instanceof ServiceError)) {
    console.error(error);
    return problemNotice(new ServiceError(-1, "page", `The page itself failed: ${error.message}`), retry);
  }
  const [, heading, advice, canRetry] = ADVICE.find(([isThis]) => isThis(error));
  const notice = stamp("problem");
  notice.querySelector("h3").textContent = heading;
  notice.querySelector(".problem-advice").textContent = advice;
  notice.querySelector(".problem-message").textContent = error.message;
  const button = notice.querySelector("button");
  button.hidden = !(canRetry && retry);
  button.addEventListener("click", () => retry());
  return notice;
}

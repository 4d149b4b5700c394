/** Numbers and moments as people read them. Pure. */

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;

export const count = (number) => number.toLocaleString("en");

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

/** How many can be found: those of the release, with the changes laid over it. */
export const imagesOf = ({ counts, live }) => counts.images + (live ? live.added - live.hidden : 0);

/** {value, low, high} as "28.0 % (26.1–29.9)". */
export const withInterval = ({ value, low, high }) =>
  low === null || low === undefined ? percent(value) : `${percent(value)} (${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)})`;

/** A number of any size in a few digits: 0.304, 12.3, 1,793. */
export const figure = (number) =>
  Number.isInteger(number) ? count(number) : number.toLocaleString("en", { maximumSignificantDigits: 3 });

export const moment = (iso) =>
  new Date(iso).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short", timeZone: "UTC" }) + " UTC";

/** "low_light" as it is said. */
export const words = (name) => name.replaceAll("_", " ");

/** A difference of two shares in percentage points: "−2.0", "+0.2". */
export const points = (difference) => `${difference < 0 ? "−" : "+"}${Math.abs(100 * difference).toFixed(1)}`;

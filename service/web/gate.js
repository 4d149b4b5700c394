/** What the promotion gate required of the encoder and what it measured: `gate` of /release's details as elements. */
import { html, table } from "./elements.js";
import { count, moment, percent, points, words } from "./numbers.js";

const KINDS = {
  golden: "Brings inputs to compare with",
  parity: "Embeds as its reference does",
  reproduced: "Embeds as when it was made",
  spread: "Tells different inputs apart",
  floor: "Finds enough",
  no_fall: "Finds no less than the one before",
};
const cosine = (number) => number.toFixed(4);
const UNITS = { floor: percent, no_fall: points };
const RULES =
  "Where it must find no less, the difference is in percentage points, with its 95 % interval. “Shown”: the whole interval must keep to what is required. “Not refuted”: some of it must, as the set is too small to tell more.";

export function gateSections(verdict) {
  const title = html("h2", {}, "Its promotion gate");
  if (!verdict) return [title, html("p", {}, "This encoder has passed through no gate: nothing compared it with one before it.")];
  const { passed, checks, failed, created, policy, details = [] } = verdict;
  return [
    title,
    html("p", {}, mark(passed, "passed", "did not pass"), ` ${count(checks - failed)} of ${count(checks)} checks held, by ${policy}, ${moment(created)}.`),
    details.length ? checksOf(details, { isOpen: !passed }) : null,
  ];
}

function checksOf(details, { isOpen }) {
  const worstFirst = details.toSorted((one, other) => one.passed - other.passed);
  const rows = worstFirst.map((check) => [
    KINDS[check.kind] ?? words(check.kind),
    check.subject,
    measured(check),
    check.limit === null ? null : `at least ${unitOf(check)(check.limit)}`,
    mark(check.passed, "passed", "failed"),
    words(check.detail),
  ]);
  return html(
    "details",
    { open: isOpen ? "" : null },
    html("summary", {}, "Each check"),
    table("What was measured, and what was required", ["Check", "Of", "Measured", "Required", "Verdict", "Note"], rows),
    details.some(({ kind }) => kind === "no_fall") ? html("p", { class: "soft" }, RULES) : null,
  );
}

const unitOf = ({ kind }) => UNITS[kind] ?? cosine;

function measured(check) {
  const { figure, low, high } = check;
  if (figure === null) return "not measured";
  const unit = unitOf(check);
  return low === null || high === null ? unit(figure) : `${unit(figure)} (${unit(low)} to ${unit(high)})`;
}

const mark = (isGood, yes, no) =>
  html("span", { class: `verdict verdict-${isGood ? "as-proven" : "far"}` }, isGood ? `✓ ${yes}` : `✗ ${no}`);

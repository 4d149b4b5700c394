/** How well a result fits, as a word, a bar and a number. Pure; knows neither the page nor the service. */

export const isCalibrated = ({ relevance }) => relevance !== null && relevance !== undefined;

const SURE = 0.85; // of which is said that they are very likely, where likely begins no later

/** What scores of one answer are seen beside: its best cosine, and its levels, by which the service's verdict goes. */
export const scaleOf = ({ results, levels }) => ({ best: results.reduce((best, { score }) => Math.max(best, score), -1), levels });

/**
 * {word, number, name, share}: what is said, the figure and what it is, and the share of the bar, 0 to 1.
 * Without a calibration there is no word: a cosine says how near, not whether it fits.
 */
export function scoreOf(result, { best, levels }) {
  const { score, relevance } = result;
  if (!isCalibrated(result)) {
    const share = best > 0 ? Math.min(1, Math.max(0, score / best)) : 0;
    return { word: "", number: score.toFixed(3), name: "cosine similarity", share };
  }
  return { word: wordOf(relevance, levels), number: `${Math.round(relevance * 100)} %`, name: "relevance", share: relevance };
}

function wordOf(relevance, levels) {
  if (!levels) return "";
  if (relevance >= Math.max(SURE, levels.likely)) return "Very likely";
  if (relevance >= levels.likely) return "Likely";
  return relevance >= levels.perhaps ? "Perhaps" : "Unlikely";
}

/** How well a result fits, as a word, a bar and a number. Pure; knows neither the page nor the service. */

const WORDS = [
  [0.85, "Very likely"],
  [0.5, "Likely"],
  [0.2, "Perhaps"],
  [0, "Unlikely"],
];

export const isCalibrated = ({ relevance }) => relevance !== null && relevance !== undefined;

/**
 * {word, number, name, share}: what is said, the figure and what it is, and the share of the bar, 0 to 1.
 * Without a calibration there is no word: a cosine says how near, not whether it fits. `best`: the highest cosine.
 */
export function scoreOf(result, best) {
  const { score, relevance } = result;
  if (!isCalibrated(result)) {
    const share = best > 0 ? Math.min(1, Math.max(0, score / best)) : 0;
    return { word: "", number: score.toFixed(3), name: "cosine similarity", share };
  }
  const [, word] = WORDS.find(([least]) => relevance >= least) ?? WORDS.at(-1);
  return { word, number: `${Math.round(relevance * 100)} %`, name: "relevance", share: relevance };
}

// Shades for the probability of a token: the lower the probability, the darker.

/** Least probability of the tokens with shade n; shade 0 is no shade. */
export const LEAST_PROBABILITIES = [0.9, 0.5, 0.2, 0.05, 0.01, 0] as const;

/** Returns the shade of a log-probability; -1 if it is not known. */
export function shadeOf(logprob: number | null | undefined): number {
  if (logprob == null) return -1;
  const probability = Math.exp(logprob);
  return LEAST_PROBABILITIES.findIndex((least) => probability >= least);
}

export function shadeWords(shade: number): string {
  const least = LEAST_PROBABILITIES[shade];
  return least ? `≥ ${100 * least} %` : `< ${100 * LEAST_PROBABILITIES[LEAST_PROBABILITIES.length - 2]!} %`;
}

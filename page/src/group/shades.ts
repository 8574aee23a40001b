// How likely a token was, as a shade: the less likely, the stronger.

export const LEAST_PROBABILITIES = [0.9, 0.5, 0.2, 0.05, 0.01, 0] as const;
/** Shade n is for tokens at least so likely; shade 0 is none. */

/** -1: not known. */
export function shadeOf(logprob: number | null | undefined): number {
  if (logprob == null) return -1;
  const probability = Math.exp(logprob);
  return LEAST_PROBABILITIES.findIndex((least) => probability >= least);
}

export function shadeWords(shade: number): string {
  const least = LEAST_PROBABILITIES[shade];
  return least ? `≥ ${100 * least} %` : `< ${100 * LEAST_PROBABILITIES[LEAST_PROBABILITIES.length - 2]!} %`;
}

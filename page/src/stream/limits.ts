// How long the page waits for a server, and how much it takes.

export const STALE_MS = 5_000;
/** Time without an event after which the page marks its content as outdated. */

export const SILENCE_MS = 15_000;
/** Three signs of life have not come: the connection is given up and made anew. */

export const FIRST_RETRY_MS = 500;
export const LONGEST_RETRY_MS = 15_000;
/** A retry waits twice as long as the one before, up to this, give or take a fifth. */

export const MOST_EVENT_CHARACTERS = 32 * 2 ** 20;
/** One event of a stream; a longer one is an error. */

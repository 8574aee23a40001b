// Timeouts of the page's connections, and size limits of the data that it accepts.

export const STALE_MS = 5_000;
/** Time without an event after which the page marks its content as outdated. */

export const SILENCE_MS = 15_000;
/** Time without any data (three missed events) after which the connection is closed and opened again. */

export const FIRST_RETRY_MS = 500;
export const LONGEST_RETRY_MS = 15_000;
/** A retry waits twice as long as the one before, up to this, give or take a fifth. */

export const MOST_EVENT_CHARACTERS = 32 * 2 ** 20;
/** One event of a stream; a longer one is an error. */

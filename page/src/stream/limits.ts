// Timeouts of the page's connections, and size limits of the data that it accepts.

/** Time without an event after which the page marks its content as outdated, in milliseconds. */
export const STALE_MS = 5_000;

/** Time without any data (three missed events) after which the connection is closed and opened again, in milliseconds. */
export const SILENCE_MS = 15_000;

/** Wait before the first retry, in milliseconds, ± 20 % at random. Each further wait is twice as long. */
export const FIRST_RETRY_MS = 500;
/** Limit of the wait before a retry, in milliseconds, ± 20 %. */
export const LONGEST_RETRY_MS = 15_000;

/** Limit of one line of a stream, in characters: the server sends the data of an event in one line. */
export const MOST_EVENT_CHARACTERS = 32 * 2 ** 20;

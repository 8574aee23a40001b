// One stream of views: connects, reads, and reconnects; pauses while the page is hidden.

import type { PageProblem } from "../wire";
import { COMMENT, EventParser, type ServerEvent } from "./events";
import { FIRST_RETRY_MS, LONGEST_RETRY_MS, SILENCE_MS } from "./limits";

export interface Receiver {
  /** Called with a view as parsed JSON. Returns whether more views follow; throws if it does not fit the earlier views. */
  view(view: unknown): boolean;
  /** Called with the part of the view that changes fastest, sent between two views. */
  pulse(pulse: unknown): void;
  /** Called with the reason why no views arrive; `final`: a retry would fail, too. */
  problem(problem: PageProblem, final: boolean): void;
  /** Called for a comment of the server: the latest view is still valid. */
  alive(): void;
}

/** Statuses that end a stream; all others are retried. 409: the shown data have changed. */
const FINAL = new Set([400, 401, 403, 404, 409, 410, 422]);

/** Reads the stream until the returned function is called. */
export function connect(path: string, receiver: Receiver): () => void {
  let reading: AbortController | null = null;
  let retry: number | undefined;
  let wait = FIRST_RETRY_MS;
  let over = false;
  const place: Place = { id: "" };

  const begin = (): void => {
    window.clearTimeout(retry);
    if (over || reading || document.hidden) return;
    const mine = new AbortController();
    reading = mine;
    void read(path, mine, receiver, place, () => (wait = FIRST_RETRY_MS)).then((outcome) => {
      if (reading !== mine) return;
      reading = null;
      if (outcome === "over") over = true;
      if (over) return;
      retry = window.setTimeout(begin, wait * (0.8 + 0.4 * Math.random()));
      wait = Math.min(2 * wait, LONGEST_RETRY_MS);
    });
  };
  const rest = (): void => {
    window.clearTimeout(retry);
    reading?.abort();
    reading = null;
  };
  const seen = (): void => {
    if (document.hidden) return rest();
    wait = FIRST_RETRY_MS;
    begin();
  };
  document.addEventListener("visibilitychange", seen);
  begin();
  return () => {
    over = true;
    document.removeEventListener("visibilitychange", seen);
    rest();
  };
}

type Outcome = "over" | "again";

/** The id of the last accepted view, after which a new connection continues. */
interface Place {
  id: string;
}

async function read(
  path: string,
  mine: AbortController,
  receiver: Receiver,
  place: Place,
  works: () => void,
): Promise<Outcome> {
  let silent = false;
  let silence: number | undefined;
  const heard = (): void => {
    window.clearTimeout(silence);
    silence = window.setTimeout(() => {
      silent = true;
      mine.abort();
    }, SILENCE_MS);
  };
  const tell = (problem: PageProblem): Outcome => {
    const final = FINAL.has(problem.status);
    receiver.problem(problem, final);
    return final ? "over" : "again";
  };
  heard();
  try {
    const answer = await fetch(path, {
      signal: mine.signal,
      headers: { accept: "text/event-stream", ...(place.id && { "last-event-id": place.id }) },
      cache: "no-store",
    });
    if (!answer.ok || !answer.body) return tell(await problemOf(answer));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    let more = true;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return more ? "again" : "over";
      heard();
      for (const event of parser.push(value)) {
        if (event.name === "problem" && tell(JSON.parse(event.data) as PageProblem) === "over") return "over";
        if (event.name === COMMENT) receiver.alive();
        if (event.name === "pulse") receiver.pulse(JSON.parse(event.data));
        if (event.name !== "view") continue;
        more = takes(receiver, event, place);
        works();
      }
    }
  } catch (error) {
    if (mine.signal.aborted && !silent) return "again";
    receiver.problem({ status: 0, detail: silent ? "The server sends no data." : whyLost(error) }, false);
    return "again";
  } finally {
    window.clearTimeout(silence);
    mine.abort();
  }
}

/** Passes on a view; returns whether more follow. If the receiver throws, the next connection begins without an id. */
function takes(receiver: Receiver, event: ServerEvent, place: Place): boolean {
  place.id = "";
  const more = receiver.view(JSON.parse(event.data));
  place.id = event.id;
  return more;
}

function whyLost(error: unknown): string {
  const network = error instanceof TypeError || error instanceof DOMException;
  return network ? "The server does not answer." : String(error instanceof Error ? error.message : error);
}

/** Returns the server's message for an error status, or the status line if it sent no message. */
export async function problemOf(answer: Response): Promise<PageProblem> {
  try {
    const body = (await answer.json()) as { detail?: unknown; title?: unknown };
    const words = [body.detail, body.title].find((word) => typeof word === "string" && word !== "");
    return { status: answer.status, detail: String(words ?? answer.statusText) };
  } catch {
    return { status: answer.status, detail: answer.statusText };
  }
}

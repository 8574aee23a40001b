// Reads server-sent events from pieces of text.

import { MOST_EVENT_CHARACTERS } from "./limits";

export interface ServerEvent {
  name: string;
  data: string;
  /** Id with which a new connection resumes after this event; "" for none. */
  id: string;
}

/** Name of the events that stand for comments, with which the server keeps a connection alive. */
export const COMMENT = ":";

/** Returns after each piece the events and comments that are complete. Throws if a line is too long. */
export class EventParser {
  #rest = "";
  #name = "";
  #id = "";
  #data: string[] = [];

  push(piece: string): ServerEvent[] {
    const events: ServerEvent[] = [];
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MOST_EVENT_CHARACTERS) throw new Error("An event of the stream is too long.");
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line: string): ServerEvent | null {
    if (line === "") {
      const event = this.#data.length > 0 ? { name: this.#name || "message", data: this.#data.join("\n"), id: this.#id } : null;
      this.#name = "";
      this.#id = "";
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return { name: COMMENT, data: "", id: "" };
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#name = value;
    if (field === "id") this.#id = value;
    if (field === "data") this.#data.push(value);
    return null;
  }
}

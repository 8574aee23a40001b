// Assembles a group from views, each of which contains the next piece of each response.

import type { ChunkInfo, GroupPage, ResponseView } from "../wire";
import { Agreement } from "./agreement";

/** A response with all of its received tokens. */
export interface Response extends Omit<ResponseView, "tokens" | "text" | "logprobs" | "start"> {
  tokens: number[];
  text: string[] | null;
  logprobs: (number | null)[] | null;
}

export interface GatheredGroup extends Omit<GroupPage, "responses"> {
  responses: Response[];
  agreement: Agreement;
  /** Whether all tokens generated so far have been received. */
  whole: boolean;
}

/** Returns the function that merges the views of one stream. A reopened stream continues, or sends all tokens again. */
export function gather(): (received: unknown) => GatheredGroup {
  const known = new Map<number, Response>();
  let agreement = new Agreement();
  return (received) => {
    const { responses, ...rest } = received as GroupPage;
    let changed = false;
    const shown = responses.map((piece) => {
      const before = known.get(piece.index);
      const kept = before ? keptBefore(before, piece) : 0;
      changed ||= before !== undefined && kept < before.tokens.length;
      const response = joined(before, piece, kept);
      known.set(piece.index, response);
      return response;
    });
    if (changed) agreement = new Agreement();
    agreement.take(shown);
    const whole = shown.every(({ tokens, length }) => tokens.length >= length);
    return { ...rest, responses: shown, agreement, whole };
  };
}

/** Returns how many received tokens remain valid: all, unless the piece replaces some or the response is shorter. */
function keptBefore({ tokens }: Response, piece: ResponseView): number {
  const overlap = Math.min(tokens.length, piece.start + piece.tokens.length);
  for (let place = piece.start; place < overlap; place++) {
    if (tokens[place] !== piece.tokens[place - piece.start]) return place;
  }
  return Math.min(tokens.length, piece.length);
}

/** Appends a piece to the lists of `before`, in place: a response may have many tokens, and a view arrives each second. */
function joined(before: Response | undefined, piece: ResponseView, kept: number): Response {
  if (piece.start > kept) throw new Error(`Tokens are missing in response ${piece.index}.`);
  const { start, ...rest } = piece;
  const extend = <T>(list: T[], more: readonly T[]): T[] => {
    list.length = Math.min(list.length, kept);
    for (let place = kept - start; place < more.length; place++) list.push(more[place]!);
    return list;
  };
  // A piece without tokens does not show whether tokens have texts and log-probabilities.
  const also = <T>(list: T[] | null | undefined, more: readonly T[] | null): T[] | null => {
    const next = piece.tokens.length === 0 && list ? [] : more;
    return next && extend(list ?? [], next);
  };
  return {
    ...rest,
    tokens: extend(before?.tokens ?? [], piece.tokens),
    text: also(before?.text, piece.text),
    logprobs: also(before?.logprobs, piece.logprobs),
  };
}

/** Returns the chunk that contains token `place`. */
export function chunkOf(chunks: readonly ChunkInfo[], place: number): ChunkInfo | undefined {
  return chunks.find((chunk) => chunk.start <= place && place < chunk.end);
}

/** Returns a worker's name without the boot that a chunk adds: "worker-1#e3ed" is one boot of worker-1. */
export function workerName(worker: string): string {
  return worker.split("#")[0]!;
}

/** Returns the workers of a response in order of time; a worker occurs once per move to it. */
export function workersOf(response: Response): string[] {
  const all = [...response.chunks.map((chunk) => workerName(chunk.worker)), response.worker].filter(Boolean);
  return all.filter((worker, place) => worker !== all[place - 1]);
}

export function versionsOf(response: Response): string[] {
  return [...new Set(response.chunks.map((chunk) => chunk.version).filter((version) => version !== ""))];
}

/** Returns the mean of the known log-probabilities; null if none is known. */
export function meanLogprob(response: Response): number | null {
  let [sum, known] = [0, 0];
  for (const value of response.logprobs ?? []) {
    if (value == null) continue;
    sum += value;
    known += 1;
  }
  return known === 0 ? null : sum / known;
}

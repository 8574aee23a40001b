// Where siblings agree: the prefix that all share, and stretches of tokens that occur in more than one of them.

import type { Response } from "./responses";

export const SPAN = 8;
/** Shortest stretch of equal tokens that is marked; shorter ones are chance. */

export const MOST_COMPARED = 200_000;
/** Tokens of a group that are compared; later ones are not marked. */

const PLACES = 2 ** 24;
/** A number above the tokens of any response. */

const NO_MARKS = new Uint8Array(0);

/** Is updated with new tokens: each token is processed once. */
export class Agreement {
  /** Tokens that all responses begin with; 0 for a single one. */
  prefix = 0;
  compared = 0;
  private readonly first = new Map<number, number>();
  private readonly marks = new Map<number, Uint8Array>();
  private readonly marked = new Map<number, number>();
  private readonly seen = new Map<number, number>();

  take(responses: readonly Response[]): void {
    this.prefix = responses.length < 2 ? 0 : commonPrefix(responses, this.prefix);
    if (responses.length < 2) return;
    for (const { index, tokens } of responses) this.follow(index, tokens);
  }

  /** By token of a response, 1 where it stands in a stretch that a sibling has too. */
  marksOf(index: number): Uint8Array {
    return this.marks.get(index) ?? NO_MARKS;
  }

  /** Share of a response's compared tokens that stand in such stretches. */
  share(index: number): number {
    const seen = this.seen.get(index) ?? 0;
    return seen === 0 ? 0 : (this.marked.get(index) ?? 0) / seen;
  }

  private follow(index: number, tokens: readonly number[]): void {
    let seen = this.seen.get(index) ?? 0;
    for (; seen < tokens.length && this.compared < MOST_COMPARED; seen++, this.compared++) {
      if (seen + 1 < SPAN) continue;
      const begin = seen + 1 - SPAN;
      const hash = hashOf(tokens, begin);
      const other = this.first.get(hash);
      if (other === undefined) this.first.set(hash, index * PLACES + begin);
      else if (Math.floor(other / PLACES) !== index) {
        this.mark(Math.floor(other / PLACES), other % PLACES);
        this.mark(index, begin);
      }
    }
    this.seen.set(index, seen);
  }

  private mark(index: number, begin: number): void {
    let marks = this.marks.get(index) ?? new Uint8Array(1024);
    if (begin + SPAN > marks.length) {
      const larger = new Uint8Array(2 * (begin + SPAN));
      larger.set(marks);
      marks = larger;
    }
    let marked = this.marked.get(index) ?? 0;
    for (let place = begin; place < begin + SPAN; place++) {
      marked += 1 - marks[place]!;
      marks[place] = 1;
    }
    this.marks.set(index, marks);
    this.marked.set(index, marked);
  }
}

/** 32 bits are enough: a collision would underline a few tokens too many. */
function hashOf(tokens: readonly number[], begin: number): number {
  let hash = 0x811c9dc5;
  for (let place = begin; place < begin + SPAN; place++)
    hash = Math.imul(hash ^ tokens[place]!, 0x01000193) ^ (hash >>> 15);
  return hash >>> 0;
}

function commonPrefix(responses: readonly Response[], known: number): number {
  const [one, ...others] = responses;
  const shortest = responses.reduce((least, { tokens }) => Math.min(least, tokens.length), Infinity);
  let place = Math.min(known, shortest);
  while (place < shortest && others.every(({ tokens }) => tokens[place] === one!.tokens[place])) place++;
  return place;
}

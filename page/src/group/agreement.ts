// Finds where siblings agree: the prefix that all share, and sequences of tokens that occur in more than one of them.

/** Length of the shortest sequence of equal tokens that is marked; shorter ones are equal by chance. */
export const SPAN = 8;

/** Limit of the compared tokens of a group; later tokens are not marked. */
export const MOST_COMPARED = 200_000;

/** Greater than the length of any response: a token's place is stored as response index × PLACES + token index. */
const PLACES = 2 ** 24;

/** The part of a response that is compared: its index in the group, and all of its received tokens. */
interface Compared {
  index: number;
  tokens: readonly number[];
}

const NO_MARKS = new Uint8Array(0);

/** The agreement of a group's responses, updated with new tokens: each token is processed once. */
export class Agreement {
  /** Number of tokens of the prefix that all responses share; 0 for a single response. */
  prefix = 0;
  compared = 0;
  private readonly first = new Map<number, number>();
  private readonly marks = new Map<number, Uint8Array>();
  private readonly marked = new Map<number, number>();
  private readonly seen = new Map<number, number>();

  take(responses: readonly Compared[]): void {
    this.prefix = responses.length < 2 ? 0 : commonPrefix(responses, this.prefix);
    if (responses.length < 2) return;
    for (const { index, tokens } of responses) this.follow(index, tokens);
  }

  /** Returns one mark per token of a response: 1 if it is in a sequence that a sibling also contains, else 0. */
  marksOf(index: number): Uint8Array {
    return this.marks.get(index) ?? NO_MARKS;
  }

  /** Returns the share of a response's compared tokens that are marked. */
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

/** Hash of SPAN tokens from `begin` on. 32 bits are enough: a collision only underlines a few tokens too many. */
function hashOf(tokens: readonly number[], begin: number): number {
  let hash = 0x811c9dc5;
  for (let place = begin; place < begin + SPAN; place++)
    hash = Math.imul(hash ^ tokens[place]!, 0x01000193) ^ (hash >>> 15);
  return hash >>> 0;
}

function commonPrefix(responses: readonly Compared[], known: number): number {
  const [one, ...others] = responses;
  const shortest = responses.reduce((least, { tokens }) => Math.min(least, tokens.length), Infinity);
  let place = Math.min(known, shortest);
  while (place < shortest && others.every(({ tokens }) => tokens[place] === one!.tokens[place])) place++;
  return place;
}

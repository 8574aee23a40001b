// Draws a worker's requests as bars over time; the right edge is the present.

import type { Bars } from "../wire";
import { duration, short } from "../words";
import { colour } from "./colours";
import type { Parts, Pen, Size } from "./picture";

/** Space between bars, in pixels. */
const GAP = 1;
/** Least height of a row whose bars contain text, in pixels. */
const LABEL_FROM = 12;
/** Greatest height of a row, in pixels. */
const MOST_ROW = 16;
/** Distance from a bar at which the pointer still selects it, in pixels. */
const NEAR = 3;

export interface Ending {
  words: string;
  colour: string;
  hatched: boolean;
}

const ENDINGS: Record<string, Ending> = {
  "": { words: "running", colour: "--run", hatched: false },
  complete: { words: "finished", colour: "--ok", hatched: false },
  give_back: { words: "given back; continues later, possibly on another worker", colour: "--amber", hatched: false },
  reap: { words: "lease expired", colour: "--bad", hatched: true },
  fail: { words: "failed", colour: "--bad", hatched: true },
  abort: { words: "aborted", colour: "--cut", hatched: true },
  cancel: { words: "cancelled", colour: "--cut", hatched: true },
  carry: { words: "carried over", colour: "--moved", hatched: false },
};

export function ending(event: string): Ending {
  return ENDINGS[event] ?? { words: event, colour: "--moved", hatched: false };
}

export const LEGEND: readonly (readonly [string, string, boolean])[] = [
  ["running", "--run", false],
  ["finished", "--ok", false],
  ["given back", "--amber", false],
  ["carried over", "--moved", false],
  ["aborted or cancelled", "--cut", true],
  ["failed, or lease expired", "--bad", true],
];

/** Returns the bars of each lane, ordered by start, and the largest number of rows of a lane. */
export function byLane(bars: Bars, lanes: number): { bars: number[][]; rows: number } {
  const found: number[][] = Array.from({ length: lanes }, () => []);
  let rows = 1;
  bars.lane.forEach((lane, bar) => {
    found[lane]?.push(bar);
    rows = Math.max(rows, (bars.row[bar] ?? 0) + 1);
  });
  for (const each of found) each.sort((a, b) => bars.start[a]! - bars.start[b]!);
  return { bars: found, rows };
}

export class LanePainting {
  constructor(
    private readonly bars: Bars,
    private readonly mine: readonly number[],
    private readonly rows: number,
    /** Returns the present time of the store, in seconds. */
    private readonly now: () => number,
    /** Time between the left and the right edge, in seconds. */
    private readonly span: number,
  ) {}

  paint({ context, width, height, chosen }: Pen): void {
    const now = this.now();
    context.fillStyle = colour("--grid");
    for (const [x] of ticks(width, this.span)) context.fillRect(Math.round(x), 0, 1, height);
    this.mine.forEach((bar, place) => {
      const [x, y, w, h] = this.box(bar, now, { width, height });
      if (x + w < 0) return;
      const { colour: name, hatched } = ending(this.bars.event[bar]!);
      context.fillStyle = colour(name);
      context.fillRect(x, y, w, h);
      if (hatched) hatch(context, x, y, w, h);
      if (h >= LABEL_FROM) label(context, this.bars.request[bar]!, x, y, w, h);
      if (place === chosen) frame(context, x, y, w, h);
    });
  }

  parts(job: (request: string) => string | null): Parts {
    const { bars, mine } = this;
    return {
      count: mine.length,
      key: (part) => `${bars.request[mine[part]!]} ${bars.start[mine[part]!]}`,
      at: (x, y, size) => this.at(x, y, size),
      words: (part) => this.words(mine[part]!),
      link: (part) => job(bars.request[mine[part]!]!),
    };
  }

  private words(bar: number): string {
    const end = this.bars.end[bar] ?? this.now();
    const tokens = this.bars.end[bar] == null ? "tokens at its start" : "tokens";
    const how = ending(this.bars.event[bar]!).words;
    return `${this.bars.request[bar]}: ${how}, ${duration(end - this.bars.start[bar]!)}, ${short(this.bars.tokens[bar])} ${tokens}`;
  }

  private at(x: number, y: number, size: Size): number {
    const now = this.now();
    for (let place = this.mine.length - 1; place >= 0; place--) {
      const [left, top, w, h] = this.box(this.mine[place]!, now, size);
      const near = h < 4 ? 1 : 0;
      if (x >= left - NEAR && x <= left + w + NEAR && y >= top - near && y <= top + h + near) return place;
    }
    return -1;
  }

  private box(bar: number, now: number, { width, height }: Size): [number, number, number, number] {
    const row = Math.min(MOST_ROW, height / this.rows);
    const left = this.x(this.bars.start[bar]!, now, width);
    const end = this.bars.end[bar];
    const right = end == null ? width : this.x(end, now, width);
    const gap = row > 3 ? GAP : 0;
    return [left, this.bars.row[bar]! * row, Math.max(1, right - left - GAP), Math.max(0.75, row - gap)];
  }

  private x(time: number, now: number, width: number): number {
    return width - ((now - time) / this.span) * width;
  }
}

export function paintTimes({ context, width, height }: Pen, span: number, end: string): void {
  context.fillStyle = colour("--dim");
  context.textBaseline = "middle";
  for (const [x, words] of ticks(width, span)) {
    context.textAlign = x < 20 ? "left" : "center";
    context.fillText(words, x, height / 2);
  }
  context.textAlign = "right";
  context.fillText(end, width, height / 2);
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400];
/** Width of a time label with its margins, in pixels. */
const TICK = 100;

function ticks(width: number, span: number): [number, string][] {
  const every = STEPS.find((step) => (step / span) * width >= TICK) ?? span;
  const found: [number, string][] = [];
  for (let ago = every; ago < span; ago += every) found.push([width - (ago / span) * width, `−${duration(ago)}`]);
  return found;
}

function hatch(context: CanvasRenderingContext2D, x: number, y: number, w: number, h: number): void {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.strokeStyle = colour("--panel");
  context.lineWidth = 1.5;
  context.beginPath();
  for (let at = x - h; at < x + w; at += 6) {
    context.moveTo(at, y + h);
    context.lineTo(at + h, y);
  }
  context.stroke();
  context.restore();
}

function label(context: CanvasRenderingContext2D, request: string, x: number, y: number, w: number, h: number): void {
  const left = Math.max(0, x) + 4;
  const room = x + w - left - 4;
  const words = request.slice(request.indexOf("/") + 1);
  if (room < 24) return;
  context.save();
  context.beginPath();
  context.rect(left, y, room, h);
  context.clip();
  context.fillStyle = colour("--on-bar");
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(words, left, y + h / 2 + 0.5);
  context.restore();
}

export function frame(context: CanvasRenderingContext2D, x: number, y: number, w: number, h: number): void {
  context.strokeStyle = colour("--text");
  context.lineWidth = 2;
  context.strokeRect(x - 1, y - 1, w + 2, h + 2);
}

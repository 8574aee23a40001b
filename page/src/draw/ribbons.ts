// Responses as ribbons over their tokens: shades of log-probability, where siblings agree, who generated what.

import { type Response, workerName, workersOf } from "../group/responses";
import type { Agreement } from "../group/agreement";
import { shadeOf } from "../group/shades";
import { colour } from "./colours";
import type { Pen } from "./picture";

const LEFT = 34;
const BELOW = 18;
const WORKERS = ["--w0", "--w1", "--w2", "--w3", "--w4", "--w5"] as const;
const SHADES = ["--shade0", "--shade1", "--shade2", "--shade3", "--shade4", "--shade5"] as const;

export interface Ribbons {
  responses: readonly Response[];
  agreement: Agreement;
  /** Tokens from the left edge to the right one. */
  span: number;
  rowHeight: number;
  /** First and last token of what is shown below; null for none. */
  window: [number, number] | null;
}

export function ribbonsHeight(rows: number, rowHeight: number): number {
  return rows * rowHeight + BELOW;
}

export function tokenAt(x: number, width: number, span: number): number {
  return Math.floor(((x - LEFT) / (width - LEFT)) * span);
}

/** The tokens that the longest response may reach, to the next round number. */
export function ribbonSpan(responses: readonly Response[], estimate: number | null, most: number): number {
  const longest = responses.reduce((length, response) => Math.max(length, response.length), 64);
  return Math.min(Math.max(most, longest), Math.ceil(Math.max(longest * 1.1, estimate ?? 0) / 64) * 64);
}

export function workerColour(worker: string, workers: readonly string[]): string {
  const place = workers.indexOf(worker);
  return place < 0 ? "--moved" : WORKERS[place % WORKERS.length]!;
}

/** All workers of a group, sorted, so that each keeps its colour. */
export function allWorkers(responses: readonly Response[]): string[] {
  return [...new Set(responses.flatMap(workersOf))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

export function paintRibbons({ responses, agreement, span, rowHeight, window }: Ribbons, pen: Pen): void {
  const { context, width, height, chosen } = pen;
  const x = (token: number): number => LEFT + (token / span) * (width - LEFT);
  const workers = allWorkers(responses);
  context.textBaseline = "middle";
  for (const token of marks(span, width)) {
    context.fillStyle = colour("--grid");
    context.fillRect(Math.round(x(token)), 0, 1, height - BELOW);
    context.fillStyle = colour("--dim");
    context.textAlign = token === 0 ? "left" : x(token) > width - 24 ? "right" : "center";
    context.fillText(token.toLocaleString("en"), x(token), height - BELOW / 2);
  }
  responses.forEach((response, row) => {
    const top = row * rowHeight;
    if (rowHeight >= 10) {
      context.fillStyle = colour("--dim");
      context.textAlign = "right";
      context.fillText(String(response.index), LEFT - 6, top + rowHeight / 2);
    }
    paintRow(response, agreement, pen, top, rowHeight - 2, x);
    const band = Math.max(2, rowHeight * 0.22);
    for (const { worker, start, end } of owners(response)) {
      context.fillStyle = colour(workerColour(worker, workers));
      context.fillRect(x(start), top + rowHeight - 2 - band, Math.max(1, x(end) - x(start) - 1), band);
    }
    if (row === chosen) {
      context.strokeStyle = colour("--text");
      context.lineWidth = 1.5;
      context.strokeRect(LEFT - 1, top, Math.max(2, x(response.length) - LEFT + 2), rowHeight - 1);
    }
  });
  if (window) {
    context.strokeStyle = colour("--accent");
    context.lineWidth = 1.5;
    context.strokeRect(
      x(window[0]),
      0.75,
      Math.max(3, x(Math.min(span, window[1])) - x(window[0])),
      height - BELOW - 1.5,
    );
  }
}

/** A column of pixels has the shade of the mean of its tokens. */
function paintRow(
  response: Response,
  agreement: Agreement,
  pen: Pen,
  top: number,
  high: number,
  x: (token: number) => number,
): void {
  const { context } = pen;
  const total = response.tokens.length;
  context.fillStyle = colour("--cell");
  context.fillRect(x(0), top, Math.max(1, x(response.length) - x(0)), high);
  const step = Math.max(1, 1 / (x(1) - x(0)));
  for (let from = 0; from < total; from += step) {
    const [first, end] = [Math.floor(from), Math.min(total, Math.max(Math.floor(from) + 1, Math.floor(from + step)))];
    let [sum, known, shared] = [0, 0, 0];
    for (let place = first; place < end; place++) {
      const logprob = response.logprobs?.[place];
      if (logprob != null) {
        sum += logprob;
        known += 1;
      }
      if (agreement.shared(response.index, place)) shared += 1;
    }
    const shade = known === 0 ? -1 : shadeOf(sum / known);
    const [left, wide] = [x(first), Math.max(1, x(end) - x(first))];
    context.fillStyle = shade < 0 ? colour("--cell") : colour(SHADES[shade]!);
    context.fillRect(left, top, wide, high);
    if (shared * 2 > end - first) {
      context.fillStyle = colour("--shared");
      context.fillRect(left, top, wide, Math.max(2, high * 0.16));
    }
  }
}

function owners(response: Response): { worker: string; start: number; end: number }[] {
  const found = response.chunks.map(({ worker, start, end }) => ({ worker: workerName(worker), start, end }));
  const last = found.at(-1)?.end ?? 0;
  if (response.worker && response.length > last)
    found.push({ worker: response.worker, start: last, end: response.length });
  return found;
}

function marks(span: number, width: number): number[] {
  const rough = span / Math.max(2, width / 110);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, index) => index * step);
}

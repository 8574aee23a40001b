// Draws responses as ribbons over their tokens: shades of log-probability, agreement of siblings, generating workers.

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
  /** Number of tokens between the left and the right edge. */
  span: number;
  rowHeight: number;
  /** First and last token of the part shown below; null for none. */
  window: [number, number] | null;
}

export function ribbonsHeight(rows: number, rowHeight: number): number {
  return rows * rowHeight + BELOW;
}

export function tokenAt(x: number, width: number, span: number): number {
  return Math.floor(((x - LEFT) / (width - LEFT)) * span);
}

/** Returns the expected length of the longest response in tokens, rounded up. */
export function ribbonSpan(responses: readonly Response[], estimate: number | null, most: number): number {
  const longest = responses.reduce((length, response) => Math.max(length, response.length), 64);
  return Math.min(Math.max(most, longest), Math.ceil(Math.max(longest * 1.1, estimate ?? 0) / 64) * 64);
}

export function workerColour(worker: string, workers: readonly string[]): string {
  const place = workers.indexOf(worker);
  return place < 0 ? "--moved" : WORKERS[place % WORKERS.length]!;
}

/** Returns all workers of a group, sorted, so that each keeps its colour. */
export function allWorkers(responses: readonly Response[]): string[] {
  return [...new Set(responses.flatMap(workersOf))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

export function paintRibbons(ribbons: Ribbons, pen: Pen): void {
  const { responses, span, rowHeight, window } = ribbons;
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
  if (responses.length > 0) paintShades(ribbons, pen);
  responses.forEach((response, row) => {
    const top = row * rowHeight;
    if (rowHeight >= 10) {
      context.fillStyle = colour("--dim");
      context.textAlign = "right";
      context.fillText(String(response.index), LEFT - 6, top + rowHeight / 2);
    }
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

/** Canvas for the shades' pixels, drawn as ribbons from here: many times as fast as a rectangle per shade. */
const sheet = document.createElement("canvas");

/** A column of pixels has the shade of its tokens' mean, and a line at its top if siblings contain most of its tokens. */
function paintShades({ responses, agreement, span, rowHeight }: Ribbons, { context, width }: Pen): void {
  const wide = Math.max(1, Math.floor(width - LEFT));
  const image = new ImageData(wide, 2 * responses.length);
  const dots = new Uint32Array(image.data.buffer);
  const perDot = span / wide;
  const [cell, shared, shades] = [ink("--cell"), ink("--shared"), SHADES.map(ink)];
  responses.forEach(({ index, length, tokens, logprobs }, row) => {
    const marks = agreement.marksOf(index);
    const last = Math.min(wide, Math.ceil(length / perDot));
    for (let dot = 0; dot < last; dot++) {
      const first = Math.floor(dot * perDot);
      const end = Math.min(tokens.length, Math.max(first + 1, Math.floor((dot + 1) * perDot)));
      let [sum, known, marked] = [0, 0, 0];
      for (let place = first; place < end; place++) {
        const logprob = logprobs?.[place];
        if (logprob != null) {
          sum += logprob;
          known += 1;
        }
        marked += marks[place] ?? 0;
      }
      dots[2 * row * wide + dot] = known === 0 ? cell : shades[shadeOf(sum / known)]!;
      if (2 * marked > end - first) dots[(2 * row + 1) * wide + dot] = shared;
    }
  });
  [sheet.width, sheet.height] = [wide, 2 * responses.length];
  sheet.getContext("2d")!.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  const high = rowHeight - 2;
  responses.forEach((_, row) => {
    context.drawImage(sheet, 0, 2 * row, wide, 1, LEFT, row * rowHeight, wide, high);
    context.drawImage(sheet, 0, 2 * row + 1, wide, 1, LEFT, row * rowHeight, wide, Math.max(2, high * 0.16));
  });
}

/** Returns a colour as the four bytes of a pixel. */
function ink(name: string): number {
  const [red = 0, green = 0, blue = 0] = (colour(name).match(/[\d.]+/g) ?? []).map(Number);
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
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

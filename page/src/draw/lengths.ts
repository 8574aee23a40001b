// Draws the lengths of finished responses: as a histogram, and against their estimates.

import type { Histogram } from "../wire";
import { count, many, percent, short } from "../words";
import { colour } from "./colours";
import type { Parts, Pen, Size } from "./picture";

const LEFT = 44;
const BELOW = 22;
const ABOVE = 8;
const RIGHT = 22;

interface Area {
  left: number;
  top: number;
  width: number;
  height: number;
}

function area({ width, height }: Size): Area {
  return { left: LEFT, top: ABOVE, width: width - LEFT - RIGHT, height: height - ABOVE - BELOW };
}

export function paintHistogram({ edges, counts }: Histogram, pen: Pen): void {
  const { context, chosen } = pen;
  const { left, top, width, height } = area(pen);
  const most = Math.max(1, ...counts);
  context.textBaseline = "middle";
  for (const value of round(most)) {
    const y = top + height - (value / most) * height;
    context.fillStyle = colour("--grid");
    context.fillRect(left, Math.round(y), width, 1);
    context.fillStyle = colour("--dim");
    context.textAlign = "right";
    context.fillText(short(value), left - 6, y);
  }
  const step = width / Math.max(1, counts.length);
  counts.forEach((number, bin) => {
    const high = number === 0 ? 0 : Math.max(1, (number / most) * height);
    context.fillStyle = colour(bin === chosen ? "--text" : "--done");
    context.fillRect(left + bin * step + 0.5, top + height - high, Math.max(1, step - 1), high);
  });
  context.fillStyle = colour("--dim");
  context.textAlign = "center";
  const every = Math.max(1, Math.ceil((edges.length * 46) / width));
  edges.forEach((edge, bin) => {
    if (bin % every === 0) context.fillText(short(edge), left + bin * step, top + height + 13);
  });
}

export function histogramParts({ edges, counts }: Histogram): Parts {
  const all = counts.reduce((sum, number) => sum + number, 0);
  return {
    count: counts.length,
    key: (bin) => String(edges[bin]),
    at(x, _y, size) {
      const { left, width } = area(size);
      const bin = Math.floor(((x - left) / width) * counts.length);
      return bin >= 0 && bin < counts.length ? bin : -1;
    },
    words: (bin) =>
      `${count(edges[bin])} to below ${count(edges[bin + 1])} tokens: ${many(counts[bin]!, "response")} (${percent(counts[bin]! / Math.max(1, all))})`,
  };
}

/** Both axes are equal and logarithmic: exact estimates are on the diagonal, and errors by equal factors are equally far. */
export function paintScatter(estimates: readonly number[], lengths: readonly number[], pen: Pen): void {
  const { context } = pen;
  const { left, top, width, height } = area(pen);
  const all = [...estimates, ...lengths].filter((value) => value > 0);
  const low = Math.log10(Math.max(1, all.reduce((a, b) => Math.min(a, b), Infinity) * 0.8) || 1);
  const high = Math.max(low + 0.5, Math.log10(all.reduce((a, b) => Math.max(a, b), 10) * 1.25));
  const x = (value: number): number => left + ((Math.log10(Math.max(1, value)) - low) / (high - low)) * width;
  const y = (value: number): number => top + height - ((Math.log10(Math.max(1, value)) - low) / (high - low)) * height;
  context.textBaseline = "middle";
  for (const value of decades(10 ** low, 10 ** high)) {
    context.fillStyle = colour("--grid");
    context.fillRect(Math.round(x(value)), top, 1, height);
    context.fillRect(left, Math.round(y(value)), width, 1);
    context.fillStyle = colour("--dim");
    context.textAlign = "center";
    context.fillText(short(value), x(value), top + height + 13);
    context.textAlign = "right";
    context.fillText(short(value), left - 6, y(value));
  }
  context.strokeStyle = colour("--dim");
  context.setLineDash([4, 4]);
  context.beginPath();
  context.moveTo(x(10 ** low), y(10 ** low));
  context.lineTo(x(10 ** high), y(10 ** high));
  context.stroke();
  context.setLineDash([]);
  context.fillStyle = colour("--run");
  context.globalAlpha = estimates.length > 300 ? 0.45 : 0.75;
  estimates.forEach((estimate, pair) => context.fillRect(x(lengths[pair] ?? 0) - 1.5, y(estimate) - 1.5, 3, 3));
  context.globalAlpha = 1;
}

/** Returns a sentence on the errors of the estimates; null without estimates. */
export function nearness(estimates: readonly number[], lengths: readonly number[]): string | null {
  const ratios = estimates
    .map((estimate, pair) => (lengths[pair] ?? 0) / estimate)
    .filter((ratio) => ratio > 0 && Number.isFinite(ratio));
  if (ratios.length === 0) return null;
  const off = ratios.map((ratio) => Math.max(ratio, 1 / ratio)).sort((a, b) => a - b);
  const half = off[Math.floor(off.length / 2)]!;
  const longer = ratios.filter((ratio) => ratio > 1).length / ratios.length;
  return `Half of ${many(ratios.length, "response")} differ from the estimate by a factor of at most ${half.toFixed(2)}; ${percent(longer)} are longer than estimated.`;
}

function round(most: number): number[] {
  const rough = most / 3;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const step = Math.max(1, ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => index * step);
}

function decades(low: number, high: number): number[] {
  const wide = high / low > 2000;
  const found: number[] = [];
  for (let power = 1; power < high; power *= 10)
    for (const factor of wide ? [1] : [1, 2, 5])
      if (factor * power >= low && factor * power <= high) found.push(factor * power);
  return found;
}

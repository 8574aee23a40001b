// A chart of the fleet's metrics over time.

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

import { useColourChanges } from "../theme";
import { duration } from "../words";
import { colour, forgetColours } from "./colours";

/** Height of a chart, in pixels. */
const HEIGHT = 104;
const TOGETHER = uPlot.sync("fleet");

export interface Line {
  name: string;
  /** Name of the custom property with the line's colour. */
  colour: string;
  values: readonly (number | null)[];
  dashed?: boolean;
}

interface SeriesProps {
  title: string;
  /** Times of the values in seconds, relative to now or to the end of an ended run; at most 0. */
  at: readonly number[];
  live: boolean;
  lines: readonly Line[];
  words(value: number | null | undefined): string;
  /** Least upper end of the value axis. */
  top?: number;
}

/** A chart with its latest values beside the title. While the pointer is on any chart, the values at its time are shown. */
export function Series({ title, at, live, lines, words, top }: SeriesProps) {
  const box = useRef<HTMLDivElement>(null);
  const values = useRef<HTMLSpanElement>(null);
  const chart = useRef<uPlot | null>(null);
  const colours = useColourChanges();
  const latest = useRef({ at, lines, words });
  latest.current = { at, lines, words };

  const showValues = (): void => {
    const { at, lines, words } = latest.current;
    const pointed = chart.current?.cursor.idx;
    const place = pointed ?? at.length - 1;
    const facts = lines.map((line) => (lines.length > 1 ? `${line.name} ` : "") + words(line.values[place]));
    const when = pointed == null ? "" : `${duration(-(at[place] ?? 0))} ${live ? "ago" : "before the end"}: `;
    if (values.current) values.current.textContent = at.length === 0 ? "no data yet" : when + facts.join(" · ");
  };

  useLayoutEffect(() => {
    forgetColours();
    const axis = { stroke: colour("--dim"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: colour("--grid"), width: 1 };
    const made = new uPlot(
      {
        width: Math.max(100, box.current!.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        cursor: { sync: { key: TOGETHER.key }, points: { size: 6 }, drag: { x: false, y: false } },
        scales: {
          x: { time: false },
          y: { range: (_chart, _low, high) => [0, Math.max(top ?? 0, (high ?? 0) * 1.08) || 1] },
        },
        axes: [
          {
            ...axis,
            grid,
            size: 22,
            space: 60,
            values: (_chart, splits) => splits.map((ago) => (ago === 0 ? (live ? "now" : "end") : `−${duration(-ago)}`)),
          },
          {
            ...axis,
            grid,
            size: 46,
            space: 26,
            values: (_chart, splits) => splits.map((value) => latest.current.words(value)),
          },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            stroke: colour(line.colour),
            width: 1.5,
            points: { show: false },
            spanGaps: false,
            ...(line.dashed ? { dash: [5, 4] } : {}),
          })),
        ],
        hooks: { setCursor: [showValues] },
      },
      columns(at, lines),
      box.current!,
    );
    made.over.setAttribute("aria-hidden", "true");
    chart.current = made;
    const watch = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry?.contentRect.width ?? 0);
      if (width > 0 && width !== made.width) made.setSize({ width, height: HEIGHT });
    });
    watch.observe(box.current!);
    return () => {
      watch.disconnect();
      made.destroy();
      chart.current = null;
    };
  }, [colours, lines.length]);

  useEffect(() => {
    chart.current?.setData(columns(at, lines));
    showValues();
  }, [at]);

  return (
    <figure class="series">
      <figcaption>
        <span>{title}</span> <span class="figures" ref={values} />
      </figcaption>
      <div ref={box} role="img" aria-label={`${title}: ${inWords(at, live, lines, words)}`} />
    </figure>
  );
}

function columns(at: readonly number[], lines: readonly Line[]): uPlot.AlignedData {
  return [at as number[], ...lines.map((line) => line.values as (number | null)[])];
}

function inWords(
  at: readonly number[],
  live: boolean,
  lines: readonly Line[],
  words: SeriesProps["words"],
): string {
  if (at.length === 0) return "no data yet";
  const facts = lines.map((line) => {
    const known = line.values.filter((value): value is number => value != null);
    if (known.length === 0) return `${line.name} not known`;
    const [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
    return `${line.name} ${live ? "now" : "at the end"} ${words(line.values.at(-1))}, between ${words(low)} and ${words(high)}`;
  });
  return `over the last ${duration(-(at[0] ?? 0))}, ${facts.join("; ")}`;
}

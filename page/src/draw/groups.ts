// Draws the groups of a batch as a grid of cells, each filled from below by the share of its finished responses.

import type { GroupColumns } from "../wire";
import { count, many } from "../words";
import { colour } from "./colours";
import { frame } from "./lanes";
import type { Parts, Pen, Size } from "./picture";

/** Height of a section's title, in pixels. */
const HEAD = 22;
/** Space between cells, in pixels. */
const GAP = 2;
/** Limits of a cell's width and height, in pixels. */
const LARGEST = 26;
const SMALLEST = 7;
/** Approximate limit of the picture's height, in pixels, from which the cells' size follows. */
const AREA = 150;

const SECTIONS = ["running", "waiting", "ended with failures", "done"] as const;
type Section = (typeof SECTIONS)[number];

interface Layout {
  /** For each cell of the grid: the group's index, and the cell's position in pixels. */
  group: number[];
  x: number[];
  y: number[];
  heads: [string, number][];
  height: number;
  cell: number;
}

export class GroupGrid {
  private readonly sections: Record<Section, number[]>;
  private laid: { width: number; layout: Layout } | null = null;

  constructor(private readonly groups: GroupColumns) {
    this.sections = { running: [], waiting: [], "ended with failures": [], done: [] };
    groups.name.forEach((_, group) => this.sections[section(groups, group)].push(group));
  }

  height = (width: number): number => this.layout(width).height;

  paint = ({ context, width, chosen }: Pen): void => {
    const { group, x, y, heads, cell } = this.layout(width);
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillStyle = colour("--dim");
    for (const [words, top] of heads) context.fillText(words, 0, top + HEAD / 2);
    const { groups } = this;
    const [empty, full, run, bad] = [colour("--cell"), colour("--done"), colour("--run"), colour("--bad")];
    group.forEach((each, place) => {
      const [left, top] = [x[place]!, y[place]!];
      const done = Math.round(cell * share(groups, each));
      context.fillStyle = empty;
      context.fillRect(left, top, cell, cell - done);
      context.fillStyle = full;
      context.fillRect(left, top + cell - done, cell, done);
      if (groups.running[each]! > 0) {
        context.strokeStyle = run;
        context.lineWidth = 1.5;
        context.strokeRect(left + 0.75, top + 0.75, cell - 1.5, cell - 1.5);
      }
      if (groups.failed[each]! > 0) {
        context.fillStyle = bad;
        context.beginPath();
        context.moveTo(left + cell * 0.3, top);
        context.lineTo(left + cell, top);
        context.lineTo(left + cell, top + cell * 0.7);
        context.fill();
      }
      if (place === chosen) frame(context, left, top, cell, cell);
    });
  };

  parts(link: (group: string) => string): Parts {
    const order = SECTIONS.flatMap((each) => this.sections[each]);
    const { groups } = this;
    return {
      count: order.length,
      key: (part) => groups.name[order[part]!]!,
      at: (x, y, size) => this.at(x, y, size),
      across: (part, direction, size) => this.across(part, direction, size),
      words: (part) => this.words(order[part]!),
      link: (part) => link(groups.name[order[part]!]!),
      page: 50,
    };
  }

  /** Returns a text with the number of groups of each section. */
  summary(): string {
    return SECTIONS.map((each) => `${count(this.sections[each].length)} ${each}`).join(", ");
  }

  private words(group: number): string {
    const { name, size, ok, failed, running, waiting, longest, estimate } = this.groups;
    const facts = [
      `${ok[group]} of ${size[group]} done`,
      running[group]! > 0 && `${running[group]} running`,
      waiting[group]! > 0 && `${waiting[group]} waiting`,
      failed[group]! > 0 && `${failed[group]} failed`,
      longest[group]! > 0 && `longest ${count(longest[group])}`,
      estimate[group] != null && `estimate ${count(estimate[group])} tokens`,
    ];
    return `${name[group]}: ${facts.filter(Boolean).join(", ")}`;
  }

  private layout(width: number): Layout {
    if (this.laid?.width === width) return this.laid.layout;
    const cell = cellFor(this.groups.name.length, width);
    const pitch = cell + GAP;
    const across = Math.max(1, Math.floor((width + GAP) / pitch));
    const layout: Layout = { group: [], x: [], y: [], heads: [], height: 0, cell };
    for (const each of SECTIONS) {
      const members = this.sections[each];
      if (members.length === 0) continue;
      layout.heads.push([`${many(members.length, "group")} ${each}`, layout.height]);
      const top = layout.height + HEAD;
      members.forEach((group, place) => {
        layout.group.push(group);
        layout.x.push((place % across) * pitch);
        layout.y.push(top + Math.floor(place / across) * pitch);
      });
      layout.height = top + Math.ceil(members.length / across) * pitch + 4;
    }
    this.laid = { width, layout };
    return layout;
  }

  private at(x: number, y: number, { width }: Size): number {
    const layout = this.layout(width);
    const pitch = layout.cell + GAP;
    return layout.x.findIndex((left, place) => {
      const top = layout.y[place]!;
      return x >= left && x < left + pitch && y >= top && y < top + pitch;
    });
  }

  /** Returns the nearest cell of the next row (direction 1) or of the previous row (-1). */
  private across(part: number, direction: 1 | -1, { width }: Size): number {
    const { x, y } = this.layout(width);
    let found = part;
    for (let place = part + direction; place >= 0 && place < x.length; place += direction) {
      if (y[place] === y[part]) continue;
      if (found !== part && y[place] !== y[found]) break;
      if (found === part || Math.abs(x[place]! - x[part]!) < Math.abs(x[found]! - x[part]!)) found = place;
    }
    return found;
  }
}

function cellFor(groups: number, width: number): number {
  const side = Math.sqrt((width * AREA) / Math.max(1, groups)) - GAP;
  return Math.round(Math.min(LARGEST, Math.max(SMALLEST, side)));
}

function share(groups: GroupColumns, group: number): number {
  const size = groups.size[group]!;
  return size === 0 ? 1 : 1 - Math.min(1, (groups.running[group]! + groups.waiting[group]!) / size);
}

function section(groups: GroupColumns, group: number): Section {
  if (groups.running[group]! > 0) return "running";
  if (groups.waiting[group]! > 0) return "waiting";
  return groups.failed[group]! > 0 ? "ended with failures" : "done";
}

// A canvas as a component: as wide as its parent, with a name for screen readers; pointer or keys select its parts.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import { useColourChanges } from "../theme";
import { forgetColours } from "./colours";
import { paintMoving, paintNever, paintSoon } from "./frame";

export interface Pen {
  context: CanvasRenderingContext2D;
  width: number;
  height: number;
  /** Index of the selected part, -1 for none. */
  chosen: number;
}

export interface Size {
  width: number;
  height: number;
}

/** The parts of a picture that can be selected. A part has the same key in successive pictures. */
export interface Parts {
  count: number;
  key(part: number): string;
  /** Returns the part at a position in pixels; -1 for none. */
  at(x: number, y: number, size: Size): number;
  words(part: number): string;
  link?: (part: number) => string | null;
  /** Returns the part below (+1) or above (-1) `part`; unset: the next or the previous part. */
  across?: (part: number, direction: 1 | -1, size: Size) => number;
  /** Number of parts that Page Up and Page Down skip. */
  page?: number;
  /** Returns the part with a key; unset: all keys are searched. */
  find?: (key: string) => number;
  /** Called for a press or click, in place of following the link. */
  press?: (x: number, width: number) => void;
  /** Called with a part that was selected with the keyboard. */
  onKey?: (part: number) => void;
}

export interface PartText {
  words: string;
  link: string | null;
}

interface PictureProps {
  name: string;
  height: number | ((width: number) => number);
  paint(pen: Pen): void;
  parts?: Parts;
  /** Text below the picture while no part is selected; unset: no line below. */
  hint?: string;
  /** Called with the text of the selected part, in place of the line below. */
  onText?: (text: PartText | null) => void;
  /** Whether to repaint every BEAT_MS, not only with new data. */
  moves?: boolean;
  /** The content of the picture as text or a table, for screen readers. */
  children?: ComponentChildren;
}

export function Picture({ name, height, paint, parts, hint, onText, moves = false, children }: PictureProps) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [key, setKey] = useState<string | null>(null);
  const colours = useColourChanges();
  const size = { width, height: typeof height === "number" ? height : height(width) };
  const chosen = parts && key !== null ? find(parts, key) : -1;

  const latest = useRef({ paint, size, chosen });
  latest.current = { paint, size, chosen };
  const draw = useRef(() => {
    if (canvas.current && latest.current.size.width > 0) {
      const { paint, size, chosen } = latest.current;
      paint({ context: prepare(canvas.current, size), ...size, chosen });
    }
  }).current;

  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    watch.observe(box.current!);
    return () => {
      watch.disconnect();
      paintNever(draw);
    };
  }, []);
  useLayoutEffect(() => forgetColours(), [colours]);
  useLayoutEffect(() => paintSoon(draw));
  useEffect(() => (moves ? paintMoving(draw) : undefined), [moves]);

  const choose = (part: number): void => {
    if (!parts || part === chosen) return;
    setKey(part < 0 ? null : parts.key(part));
    onText?.(part < 0 ? null : { words: parts.words(part), link: parts.link?.(part) ?? null });
  };
  const place = (event: PointerEvent | MouseEvent): number => {
    const area = canvas.current!.getBoundingClientRect();
    return parts?.at(event.clientX - area.left, event.clientY - area.top, size) ?? -1;
  };
  const follow = (part: number): void => {
    const link = part >= 0 ? parts?.link?.(part) : null;
    if (link) location.hash = link;
  };
  const keyed = (event: KeyboardEvent): void => {
    if (!parts) return;
    if (event.key === "Enter") return follow(chosen);
    const next = step(parts, chosen, event.key, size);
    if (next === null) return;
    event.preventDefault();
    choose(next);
    if (next >= 0) parts.onKey?.(next);
  };
  const clicked = (event: MouseEvent): void => {
    if (parts?.press) parts.press(event.clientX - canvas.current!.getBoundingClientRect().left, size.width);
    else if ((event as PointerEvent).pointerType !== "touch") follow(place(event));
  };

  const usable = parts && parts.count > 0;
  const text = chosen >= 0 ? parts!.words(chosen) : "";
  const link = chosen >= 0 ? parts?.link?.(chosen) : null;
  return (
    <div class="picture" ref={box}>
      <canvas
        ref={canvas}
        style={{ width: `${size.width}px`, height: `${size.height}px` }}
        {...(usable
          ? {
              tabIndex: 0,
              role: "slider",
              "aria-label": `${name}. Arrow keys choose${parts.link ? ", Enter opens" : ""}.`,
              "aria-valuemin": 0,
              "aria-valuemax": parts.count - 1,
              "aria-valuenow": Math.max(0, chosen),
              "aria-valuetext": text || "nothing selected",
              onKeyDown: keyed,
              onPointerMove: (event: PointerEvent) => event.pointerType !== "touch" && choose(place(event)),
              onPointerLeave: (event: PointerEvent) => event.pointerType !== "touch" && choose(-1),
              onPointerDown: (event: PointerEvent) => event.pointerType === "touch" && choose(place(event)),
              onClick: clicked,
            }
          : { role: "img", "aria-label": name })}
        class={chosen >= 0 && (link || parts?.press) ? "opens" : undefined}
      />
      {hint !== undefined && <Readout text={text ? { words: text, link: link ?? null } : null} hint={hint} />}
      {children && <div class="unseen">{children}</div>}
    </div>
  );
}

/** Shows the selected part as text, with a link that opens it on touch screens. */
export function Readout({ text, hint }: { text: PartText | null; hint: string }) {
  return (
    <p class="readout">
      {text?.words ?? hint}
      {text?.link && (
        <>
          {" "}
          <a href={text.link} tabIndex={-1}>
            open
          </a>
        </>
      )}
    </p>
  );
}

function find(parts: Parts, key: string): number {
  if (parts.find) return parts.find(key) < parts.count ? parts.find(key) : -1;
  for (let part = 0; part < parts.count; part++) if (parts.key(part) === key) return part;
  return -1;
}

function step(parts: Parts, from: number, key: string, size: Size): number | null {
  const within = (part: number): number => Math.min(parts.count - 1, Math.max(0, part));
  const across = (direction: 1 | -1): number =>
    from < 0 || !parts.across ? within(from + direction) : within(parts.across(from, direction, size));
  switch (key) {
    case "ArrowRight":
      return within(from + 1);
    case "ArrowLeft":
      return within(from < 0 ? parts.count - 1 : from - 1);
    case "ArrowDown":
      return across(1);
    case "ArrowUp":
      return across(-1);
    case "PageDown":
      return within(from + (parts.page ?? 10));
    case "PageUp":
      return within(from - (parts.page ?? 10));
    case "Home":
      return 0;
    case "End":
      return parts.count - 1;
    case "Escape":
      return -1;
    default:
      return null;
  }
}

/** Clears the canvas and sets its resolution to that of the screen. */
function prepare(canvas: HTMLCanvasElement, { width, height }: Size): CanvasRenderingContext2D {
  const dots = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * dots), Math.round(height * dots)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = canvas.getContext("2d")!;
  context.setTransform(dots, 0, 0, dots, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = '11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
  return context;
}

// A long list of which the document contains only the visible part.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** Items rendered on each side of the visible part. */
const BEYOND = 3;

interface WindowedProps {
  name: string;
  count: number;
  /** Size of one item in the direction of the list, in pixels. */
  size: number;
  direction?: "down" | "right";
  class?: string;
  item(index: number): ComponentChildren;
}

/** A scrolling box with items of equal size. */
export function Windowed({ name, count, size, direction = "down", class: more = "", item }: WindowedProps) {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState({ from: 0, to: 8 });
  const down = direction === "down";
  const look = (): void => {
    const area = box.current;
    if (!area) return;
    const [begin, length] = down ? [area.scrollTop, area.clientHeight] : [area.scrollLeft, area.clientWidth];
    const from = Math.max(0, Math.floor(begin / size) - BEYOND);
    const to = Math.ceil((begin + length) / size) + BEYOND;
    setSeen((before) => (before.from === from && before.to === to ? before : { from, to }));
  };
  useLayoutEffect(() => {
    const watch = new ResizeObserver(look);
    watch.observe(box.current!);
    return () => watch.disconnect();
  }, [size]);
  useLayoutEffect(look, [count, size]);
  const indices = [];
  for (let index = seen.from; index < Math.min(count, seen.to); index++) indices.push(index);
  const whole = `${count * size}px`;
  const before = `${(indices[0] ?? 0) * size}px`;
  return (
    <div class={`windowed ${direction} ${more}`} ref={box} onScroll={look} tabIndex={0} role="region" aria-label={name}>
      <div style={down ? { height: whole } : { width: whole, height: "100%" }}>
        <div
          class="seen"
          style={down ? { transform: `translateY(${before})` } : { transform: `translateX(${before})` }}
        >
          {indices.map(item)}
        </div>
      </div>
    </div>
  );
}

// Components that all views use.

import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";

import { percent } from "../words";

const GOOD = new Set(["running", "busy", "ok", "complete", "done"]);
const BAD = new Set(["failed", "sick", "silent", "rollback"]);
const WARN = new Set(["waiting", "draining", "starting", "aborted", "open", "cancelled", "carried", "unknown"]);

/** A state as a word in a frame, readable without colours. */
export function Pill({ word }: { word: string }) {
  const kind = GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : WARN.has(word) ? "warn" : "calm";
  return <span class={`pill ${kind}`}>{word}</span>;
}

export function Meter({ share, name, kind = "" }: { share: number | null; name: string; kind?: string }) {
  const part = Math.min(1, Math.max(0, share ?? 0));
  return (
    <span
      class={`meter ${kind}`}
      role="progressbar"
      aria-label={name}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(share == null ? {} : { "aria-valuenow": Math.floor(100 * part), "aria-valuetext": percent(part) })}
    >
      <span style={{ width: `${100 * part}%` }} />
    </span>
  );
}

interface FigureProps {
  name: string;
  value: string;
  note?: ComponentChildren;
  children?: ComponentChildren;
}

/** One number with its name. */
export function Figure({ name, value, note, children }: FigureProps) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>
        <span class="value">{value}</span>
        {note && <span class="note">{note}</span>}
        {children}
      </dd>
    </div>
  );
}

interface PanelProps {
  title: string;
  aside?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}

export function Panel({ title, aside, class: more = "", children }: PanelProps) {
  return (
    <section class={`panel ${more}`} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {aside !== undefined && <div class="aside">{aside}</div>}
      </header>
      {children}
    </section>
  );
}

/** The reason for a state. Screen readers announce a change of its words, but not a change of its numbers alone. */
export function Reason({ words, bad = false }: { words: string; bad?: boolean }) {
  const announced = useRef(words);
  if (withoutNumbers(announced.current) !== withoutNumbers(words)) announced.current = words;
  return (
    <>
      <p class={`reason ${bad ? "bad" : ""}`}>{words}</p>
      <p class="unseen" aria-live="polite">
        {announced.current}
      </p>
    </>
  );
}

function withoutNumbers(words: string): string {
  return words.replace(/\d[\d.,]*/g, "");
}

// Placeholders for views that are empty, outdated or unavailable.

import type { ComponentChildren } from "preact";

import type { Streamed } from "../stream/use_stream";
import type { PageProblem } from "../wire";
import { clock } from "../words";
import { Login } from "../views/login";

interface ShownProps<V> {
  stream: Streamed<V>;
  /** Name of the requested item, such as "the job team-a/math". */
  what: string;
  /** The shape of the expected content. */
  skeleton: ComponentChildren;
  onLogin(): void;
  children(view: V): ComponentChildren;
}

/** The view of a stream, or a placeholder. */
export function Shown<V>({ stream, what, skeleton, onLogin, children }: ShownProps<V>) {
  const { view, problem, staleSince } = stream;
  if (problem?.final) {
    if (problem.status === 401) return <Login onLogin={onLogin} why={view ? "You were logged out." : ""} />;
    return <Failure problem={problem} what={what} />;
  }
  if (view === null) {
    if (problem) return <Failure problem={problem} what={what} />;
    return (
      <div class="skeleton" role="status" aria-label={`Loading ${what}`}>
        {skeleton}
      </div>
    );
  }
  return (
    <>
      {staleSince && <Stale since={staleSince} problem={problem} />}
      <div class={staleSince ? "stale" : undefined}>{children(view)}</div>
    </>
  );
}

function Stale({ since, problem }: { since: Date; problem: PageProblem | null }) {
  return (
    <p class="banner" role="status">
      <strong>Nothing new since {clock(since)}.</strong> {problem?.detail || "The server sends nothing."} What you see
      is as it was then; the page keeps trying.
    </p>
  );
}

const ADVICE: Record<number, string> = {
  0: "Is the server running, and can this machine reach it? The page keeps trying.",
  403: "Ask whoever runs the cluster for the right to read this job's batches, or log out and use another token.",
  404: "It may have ended and been removed, or its name is misspelt.",
  409: "What was shown here belongs to results that are no longer there.",
  429: "The page keeps trying.",
  503: "The page keeps trying, and goes on by itself.",
};

const TITLES: Record<number, string> = {
  0: "No connection",
  403: "You may not see this",
  404: "Not found",
  409: "It has changed",
  503: "No answer just now",
};

export function Failure({ problem, what }: { problem: PageProblem; what: string }) {
  return (
    <div class="empty" role="alert">
      <h2>{TITLES[problem.status] ?? `The server refuses (${problem.status})`}</h2>
      <p>
        {capital(what)}: {problem.detail || "no reason was given."}
      </p>
      <p class="dim">
        {ADVICE[problem.status] ??
          (problem.status >= 500 ? ADVICE[503] : "Reload the page; if it stays so, look at the server's log.")}
      </p>
      <p>
        <a href="#/">All jobs</a>
      </p>
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Grey shapes: a number of lines, or a block. */
export function Bone({ height = 16, width = "100%" }: { height?: number; width?: string }) {
  return <div class="bone" style={{ height: `${height}px`, width }} />;
}

function capital(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

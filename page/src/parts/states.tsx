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
  /** Grey shapes in place of content that has not arrived. */
  skeleton: ComponentChildren;
  onLogin(): void;
  children(view: V): ComponentChildren;
}

/** Shows the view of a stream, or a placeholder. */
export function Shown<V>({ stream, what, skeleton, onLogin, children }: ShownProps<V>) {
  const { view, problem, staleSince } = stream;
  if (problem?.final) {
    if (problem.status === 401) return <Login onLogin={onLogin} why={view ? "You have been logged out." : ""} />;
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
      <strong>No update since {clock(since)}.</strong> {problem?.detail || "The server sends no data."} The page shows the state of that time and keeps trying.
    </p>
  );
}

const ADVICE: Record<number, string> = {
  0: "Is the server running, and can this machine reach it? The page keeps trying.",
  403: "Ask the cluster's administrator for the right to read this job's batches, or log out and use another token.",
  404: "It may have been deleted after its end, or its name is misspelt.",
  409: "The results that this view showed no longer exist.",
  429: "The page keeps trying.",
  503: "The page keeps trying and continues by itself.",
};

const TITLES: Record<number, string> = {
  0: "No connection",
  403: "No permission",
  404: "Not found",
  409: "The data have changed",
  503: "No answer at the moment",
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
          (problem.status >= 500 ? ADVICE[503] : "Reload the page. If the problem persists, read the server's log.")}
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

// Makes a stream the state of a component: the latest view, its time of arrival, the present problem.

import { useEffect, useState } from "preact/hooks";

import type { PageProblem } from "../wire";
import { connect } from "./connection";
import { STALE_MS } from "./limits";

export interface Streamed<V> {
  /** The latest view; null before the first. */
  view: V | null;
  /** Time of the view's arrival, by `performance.now()`, in milliseconds. */
  cameAt: number;
  /** Time of the last data, once none have arrived for STALE_MS; null while views, pulses or comments arrive. */
  staleSince: Date | null;
  /** The reason why no views arrive. `final`: there is no retry, the viewer has to act. */
  problem: (PageProblem & { final: boolean }) | null;
}

const NOTHING = { view: null, cameAt: 0, staleSince: null, problem: null };

/** Updates a view with a pulse. */
export type Mix<V> = (view: V, pulse: unknown) => V;

/** `make` returns one stream's function from a received view to the shown one, which may join it with earlier pieces. */
export function useStream<V>(path: string, make: () => (received: unknown) => V, mix?: Mix<V>): Streamed<V> {
  const [kept, keep] = useState<Streamed<V> & { path: string }>({ ...NOTHING, path });
  useEffect(() => {
    const take = make();
    let state: Streamed<V> = NOTHING;
    let came = new Date();
    let timer: number | undefined;
    const set = (change: Partial<Streamed<V>>): void => {
      state = { ...state, ...change };
      keep({ ...state, path });
    };
    const watch = (): void => {
      window.clearTimeout(timer);
      timer = window.setTimeout(() => !document.hidden && set({ staleSince: came }), STALE_MS);
    };
    const fresh = (): void => {
      came = new Date();
      watch();
    };
    const live = (): boolean => state.view !== null && (state.view as { live?: boolean }).live !== false;
    const stop = connect(new URL(path, document.baseURI).href, {
      view(received) {
        const view = take(received);
        set({ view, cameAt: performance.now(), staleSince: null, problem: null });
        window.clearTimeout(timer);
        if (live()) fresh();
        return live() || (view as { whole?: boolean }).whole === false;
      },
      pulse(pulse) {
        if (!live() || !mix) return;
        set({ view: mix(state.view as V, pulse), cameAt: performance.now(), staleSince: null, problem: null });
        fresh();
      },
      problem(problem, final) {
        set({ problem: { ...problem, final } });
      },
      alive() {
        if (!live()) return;
        fresh();
        if (state.staleSince || state.problem) set({ staleSince: null, problem: null });
      },
    });
    // After a page is shown again, its server has STALE_MS to send data.
    const seen = (): void => void (!document.hidden && live() && watch());
    document.addEventListener("visibilitychange", seen);
    return () => {
      stop();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [path]);
  return kept.path === path ? kept : NOTHING;
}

/** `make` for a stream in which each view is complete. */
export function whole<V>(): (received: unknown) => V {
  return (received) => received as V;
}

// A stream as the state of a component: the latest view, its age, the present problem.

import { useEffect, useState } from "preact/hooks";

import type { PageProblem } from "../wire";
import { connect } from "./connection";
import { STALE_MS } from "./limits";

export interface Streamed<V> {
  /** The latest view; null while none has come. */
  view: V | null;
  /** `performance.now()` at which it came. */
  cameAt: number;
  /** Since when nothing has come; null while views come, or signs that the latest one still holds. */
  staleSince: Date | null;
  /** Why nothing comes. `final`: only the viewer can change it. */
  problem: (PageProblem & { final: boolean }) | null;
}

const NOTHING = { view: null, cameAt: 0, staleSince: null, problem: null };

/** Brings a view up to date with a pulse. */
export type Mix<V> = (view: V, pulse: unknown) => V;

/** `take` makes of a received view the one that is shown: itself, or the former one with a piece added. */
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
    // A page that is shown again has STALE_MS to hear of its server.
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

/** Views that each are whole. */
export function whole<V>(): (received: unknown) => V {
  return (received) => received as V;
}

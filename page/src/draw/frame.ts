// Collects paint requests and runs each once in the next frame.

const waiting = new Set<() => void>();
let asked = false;

/** Paints once in the next frame; repeated requests have no effect. */
export function paintSoon(paint: () => void): void {
  waiting.add(paint);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const now = [...waiting];
    waiting.clear();
    for (const each of now) each();
  });
}

export function paintNever(paint: () => void): void {
  waiting.delete(paint);
}

/** Repaint interval of animated drawings, in milliseconds; all are painted in the same frame. */
const BEAT_MS = 100;

const moving = new Set<() => void>();
let beat: number | undefined;

/** Paints at every beat until the returned function is called. */
export function paintMoving(paint: () => void): () => void {
  moving.add(paint);
  beat ??= window.setInterval(() => moving.forEach(paintSoon), BEAT_MS);
  return () => {
    moving.delete(paint);
    if (moving.size > 0) return;
    window.clearInterval(beat);
    beat = undefined;
  };
}

// The workers of a job, one lane each: the worker's reported state, and its running requests.

import { useEffect, useState } from "preact/hooks";

import { LEGEND, LanePainting, byLane, paintTimes } from "../draw/lanes";
import { Picture, Readout, type PartText } from "../draw/picture";
import { Meter, Panel, Pill } from "../parts/parts";
import { Windowed } from "../parts/windowed";
import { type JobPlace, requestPlace, responseLink } from "../route";
import type { Streamed } from "../stream/use_stream";
import { type JobView, WINDOW_SECONDS, type WorkerLane } from "../wire";
import { count, duration, fixed, many, named, percent, short } from "../words";

/** Height of a lane, in pixels. */
const LANE = 104;
/** Height of a lane on a narrow screen, where the text is above the bars, in pixels. */
const NARROW_LANE = 192;
/** Height of a lane's bars, in pixels. */
const TRACK = 92;
const NARROW = "(max-width: 759px)";
/** Longest time for which lanes continue to move after the latest view, in milliseconds. */
const AHEAD_MS = 1_500;

interface LanesProps {
  job: JobPlace;
  view: JobView;
  stream: Streamed<JobView>;
}

export function Lanes({ job, view, stream }: LanesProps) {
  const [text, setText] = useState<PartText | null>(null);
  const narrow = useMedia(NARROW);
  const still = useMedia("(prefers-reduced-motion: reduce)");
  const { lanes, bars } = view;
  const mine = byLane(bars, lanes.length);
  const now = (): number =>
    view.now + (view.live && !still ? Math.min(AHEAD_MS, performance.now() - stream.cameAt) / 1000 : 0);
  const moving = view.live && !still && stream.staleSince === null;
  const open = (request: string): string | null => {
    const place = requestPlace(request);
    return place && responseLink(job, place.batch, place.group, place.index);
  };
  const span = view.live
    ? WINDOW_SECONDS
    : Math.max(1, view.now - bars.start.reduce((a, b) => Math.min(a, b), view.now));
  const paces = lanes.map(pace);
  const troubles = lanes.map(trouble);
  const during = view.live ? `the last ${WINDOW_SECONDS} s` : `the whole run: ${duration(span)}`;
  const aside = `${many(lanes.length, "worker")}, ${during}${bars.left_out > 0 ? `; ${count(bars.left_out)} older leases are not shown` : ""}`;
  return (
    <Panel title="Workers and their requests" aside={aside} class="lanes">
      <Attention lanes={lanes} troubles={troubles} />
      {lanes.length === 0 ? (
        <p class="dim">No worker has sent a heartbeat yet.</p>
      ) : (
        <>
          {!narrow && (
            <div class="times">
              <div />
              <Picture
                name={`Time axis: ${during}`}
                height={18}
                paint={(pen) => paintTimes(pen, span, view.live ? "now" : "end")}
              />
            </div>
          )}
          <Windowed
            name="Workers"
            count={lanes.length}
            size={narrow ? NARROW_LANE : LANE}
            item={(index) => {
              const painting = new LanePainting(bars, mine.bars[index]!, mine.rows, now, span);
              const lane = lanes[index]!;
              return (
                <div class="lane" key={lane.worker} style={{ height: `${narrow ? NARROW_LANE : LANE}px` }}>
                  <LaneWords lane={lane} live={view.live} trouble={troubles[index]!} pace={paces[index]!} />
                  <Picture
                    name={`${lane.worker}: ${many(mine.bars[index]!.length, "lease")}, ${during}`}
                    height={TRACK}
                    paint={(pen) => painting.paint(pen)}
                    parts={painting.parts(open)}
                    onText={setText}
                    moves={moving}
                  />
                </div>
              );
            }}
          />
          <Readout
            text={text}
            hint="A bar is one lease of a response. Point at a bar or select it with the arrow keys to see the details."
          />
          <ul class="legend" aria-label="Legend of the bars">
            {LEGEND.map(([words, colour, hatched]) => (
              <li key={words}>
                <span class={`swatch bar ${hatched ? "hatched" : ""}`} style={{ backgroundColor: `var(${colour})` }} />{" "}
                {words}
              </li>
            ))}
          </ul>
        </>
      )}
    </Panel>
  );
}

interface Trouble {
  words: string;
  bad: boolean;
  /** A shorter text for the lane. */
  short?: string;
}

/** Lists the workers with problems, above all lanes. */
function Attention({ lanes, troubles }: { lanes: readonly WorkerLane[]; troubles: readonly (Trouble | null)[] }) {
  const found = lanes.flatMap((lane, index) =>
    troubles[index]?.bad ? [`${lane.worker}: ${troubles[index].words}`] : [],
  );
  if (found.length === 0) return null;
  const shown = found.slice(0, 4);
  return (
    <ul class="attention" aria-label="Workers with problems">
      {shown.map((words) => (
        <li key={words.slice(0, words.indexOf(":"))}>{words}</li>
      ))}
      {found.length > shown.length && <li>and {many(found.length - shown.length, "more worker")}</li>}
    </ul>
  );
}

interface LaneWordsProps {
  lane: WorkerLane;
  /** False for an ended run, for which the number of running requests is not shown. */
  live: boolean;
  trouble: Trouble | null;
  pace: number | null;
}

function LaneWords({ lane, live, trouble, pace }: LaneWordsProps) {
  const where = [lane.version && `weights ${lane.version}`, named(lane.device), lane.node].filter(Boolean).join(" · ");
  return (
    <div class="lane-words">
      <p class="lane-name">
        <strong>{lane.worker}</strong> <Pill word={lane.silent ? "silent" : lane.state} />
        <span class="dim figures">{lane.silent ? `${duration(lane.seen_seconds_ago)} ago` : ""}</span>
      </p>
      <p class="figures">
        {live ? (
          <span title="requests that run, of those that fit">
            {count(lane.running)}/{count(lane.slots)} running
          </span>
        ) : (
          <span title="limit of concurrent requests">{many(lane.slots, "slot")}</span>
        )}
        <span title="tokens per second, all requests together">{short(lane.tokens_per_second)} tok/s</span>
        <span title="pace: tokens per second of one request">{pace === null ? "" : `${short(pace)} each`}</span>
      </p>
      <p class="figures">
        {live && (
          <>
            <span class="dim">KV</span>{" "}
            <Meter share={lane.kv_used} name={`KV cache of ${lane.worker} in use`} kind="kv" />
            {percent(lane.kv_used)}
          </>
        )}
        {lane.acceptance_length != null && (
          <span title="acceptance length: tokens a step">{fixed(lane.acceptance_length)} a step</span>
        )}
        {lane.preemptions > 0 && <span class="bad">{many(lane.preemptions, "preemption")}</span>}
      </p>
      {trouble ? (
        <p class={trouble.bad ? "bad" : ""} title={trouble.words}>
          {trouble.short ?? trouble.words}
        </p>
      ) : (
        <p class="dim" title={where}>
          {where}
        </p>
      )}
    </div>
  );
}

/** Returns tokens per second of one request; null while no request runs. */
function pace(lane: WorkerLane): number | null {
  return lane.tokens_per_second == null || lane.running === 0 || lane.silent
    ? null
    : lane.tokens_per_second / lane.running;
}

function trouble(lane: WorkerLane): Trouble | null {
  if (lane.error) return { words: lane.error, bad: true };
  if (lane.silent) return { words: `no heartbeat for ${duration(lane.seen_seconds_ago)}`, bad: true };
  if (lane.state === "sick") return { words: "is sick", bad: true };
  if (lane.slow)
    return { words: `slow: ${lane.slow}`, bad: true, short: `slow: ${fixed(lane.pace_ratio)} × the others’ pace` };
  return lane.waits ? { words: lane.waits, bad: false } : null;
}

function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const changed = (): void => setMatches(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, [query]);
  return matches;
}

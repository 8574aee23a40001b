// The parts of the workers' time: first the findings with advice, then the parts, then the lower bound.

import { Panel } from "../parts/parts";
import { Bone } from "../parts/states";
import { type JobPlace, explainedPath } from "../route";
import { useStream, whole } from "../stream/use_stream";
import type { Explained, PartOfTime, Possible, StandsOut } from "../wire";
import { duration, many, percent } from "../words";

const UNKNOWN = "not known";
/** Shortest part that is shown, in worker-seconds; shorter ones would be rounded to 0. */
const LEAST_SECONDS = 0.05;

/** `ongoing`: the job has not ended. */
export function ExplainedPanel({ job, ongoing }: { job: JobPlace; ongoing: boolean }) {
  const { view, problem, staleSince } = useStream(explainedPath(job), whole<Explained>);
  if (view === null) {
    return (
      <Panel title="Where the time went">{problem ? <p class="dim">{problem.detail}</p> : <Bone height={160} />}</Panel>
    );
  }
  const during = `${many(view.workers, "worker")}, ${duration(view.seconds)}${ongoing ? " so far" : ""}`;
  const remarks = [
    ...view.notes.map((note) => `Note: ${note}.`),
    ...(view.best?.unknown ?? []).map((each) => `Not known here: ${each}.`),
  ];
  return (
    <Panel title="Where the time went" aside={during} class={`explained ${staleSince ? "stale" : ""}`}>
      <Findings findings={view.findings} />
      {view.tail && <p>In the tail: {view.tail}.</p>}
      <Parts parts={view.parts} />
      <p>
        {view.best
          ? possible(view.best, view.makespan_seconds)
          : `The best time possible is ${UNKNOWN}: ${view.no_best}.`}
      </p>
      {remarks.map((words) => (
        <p class="dim" key={words}>
          {words}
        </p>
      ))}
    </Panel>
  );
}

/** The findings: each cause with its figure and advice. */
function Findings({ findings }: { findings: readonly StandsOut[] }) {
  if (findings.length === 0) return <p>Nothing stands out.</p>;
  return (
    <ol class="findings" aria-label="What stands out">
      {findings.map((each) => (
        <li key={`${each.cause} ${each.subject}`}>
          <strong>{each.says}.</strong> <span class="dim">Cost: {percent(each.share)} of all workers’ time.</span>
          <br />→ {each.advice}
        </li>
      ))}
    </ol>
  );
}

function Parts({ parts }: { parts: readonly PartOfTime[] }) {
  const shown = parts.filter((part) => part.worker_seconds === null || part.worker_seconds >= LEAST_SECONDS);
  const most = Math.max(...shown.map((part) => part.share ?? 0), 1e-9);
  return (
    <table class="parts">
      <thead>
        <tr>
          <th scope="col">where the time went</th>
          <th scope="col">worker time</th>
          <th scope="col">share</th>
        </tr>
      </thead>
      <tbody>
        {shown.map(({ name, label, worker_seconds, share }) => (
          <tr key={name}>
            <th scope="row">
              {label}
              <span class="part-bar" aria-hidden="true">
                <span style={{ width: `${(100 * (share ?? 0)) / most}%` }} />
              </span>
            </th>
            <td>{worker_seconds === null ? UNKNOWN : duration(worker_seconds)}</td>
            <td>{share === null ? "" : `${(100 * share).toFixed(1)} %`}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function possible(best: Possible, makespan: number): string {
  const times = (seconds: number): string => (makespan / seconds).toFixed(2);
  return (
    `Possible makespans for these lengths, simulated on healthy engines: ${duration(best.known)} with the lengths known ` +
    `at each time (policy ${best.policy}), ${duration(best.oracle)} with an oracle, ${duration(best.bound)} as the lower ` +
    `bound (all engines full to the end). The run took ${duration(makespan)}: ${times(best.known)}, ${times(best.oracle)} and ` +
    `${times(best.bound)} times as long.`
  );
}

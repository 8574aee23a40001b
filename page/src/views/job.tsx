// One job: its workers with their requests, speeds and weights, and its batches.

import { Pill, Panel, Reason } from "../parts/parts";
import { Bone, Shown } from "../parts/states";
import { Series } from "../draw/series";
import { type JobPlace, streamPath } from "../route";
import { type Streamed, useStream, whole } from "../stream/use_stream";
import type { JobPulse, JobView } from "../wire";
import { fixed, named, percent, short } from "../words";
import { Batches } from "./batches";
import { ExplainedPanel } from "./explained";
import { CardFigures, Progress } from "./jobs";
import { Lanes } from "./lanes";
import { WeightsPanel } from "./weights";

interface JobPageProps {
  route: { view: "job"; job: JobPlace };
  onLogin(): void;
}

export function JobPage({ route, onLogin }: JobPageProps) {
  const stream = useStream(streamPath(route), whole<JobView>, withPulse);
  const skeleton = (
    <>
      <Bone width="30%" height={28} />
      <Bone height={72} />
      <div class="job">
        <Bone height={420} />
        <Bone height={420} />
      </div>
    </>
  );
  return (
    <Shown
      stream={stream}
      what={`the job ${route.job.namespace}/${route.job.name}`}
      skeleton={skeleton}
      onLogin={onLogin}
    >
      {(view) => <Job job={route.job} view={view} stream={stream} />}
    </Shown>
  );
}

/** Updates the known lanes of a view. A new worker appears with the next full view, whose bars refer to its lane. */
function withPulse(view: JobView, received: unknown): JobView {
  const { now, card, lanes } = received as JobPulse;
  const latest = new Map(lanes.map((lane) => [lane.worker, lane]));
  return { ...view, now, card, lanes: view.lanes.map((lane) => latest.get(lane.worker) ?? lane) };
}

function Job({ job, view, stream }: { job: JobPlace; view: JobView; stream: Streamed<JobView> }) {
  const { card } = view;
  return (
    <>
      <div class="head">
        <h1>
          <span class="dim">{job.namespace}/</span>
          {job.name}
        </h1>
        <Pill word={card.state} />
        {!view.live && <Pill word="ended" />}
        <p class="dim about">
          {[named(view.model), view.engine, card.mode, `policy ${view.policy}`].filter(Boolean).join(" · ")}
        </p>
      </div>
      <Reason words={card.reason} bad={card.state === "failed"} />
      {!view.live && <p class="dim">This run has ended. The page shows its state at the end.</p>}
      <section class="panel top" aria-label="At a glance">
        <Progress card={card} />
        <CardFigures card={card} />
      </section>
      <div class="job">
        <div>
          <Lanes job={job} view={view} stream={stream} />
          <ExplainedPanel job={job} ongoing={view.live} />
          <Batches job={job} batches={view.batches} />
        </div>
        <div>
          <WeightsPanel version={view.weights_version} transaction={view.transaction} now={view.now} />
          <Charts view={view} />
        </div>
      </div>
    </>
  );
}

function Charts({ view: { series, now, live } }: { view: JobView }) {
  const at = series.at.map((time) => time - now);
  const drafts = series.acceptance_length.some((value) => value != null);
  return (
    <Panel title="Over time" class="charts">
      <Series
        title="tokens/s"
        at={at}
        live={live}
        words={short}
        lines={[{ name: "tokens/s", colour: "--run", values: series.tokens_per_second }]}
      />
      <Series
        title="requests"
        at={at}
        live={live}
        words={short}
        lines={[
          { name: "running", colour: "--run", values: series.running },
          { name: "waiting", colour: "--amber", values: series.waiting, dashed: true },
        ]}
      />
      <Series
        title="KV cache in use"
        at={at}
        live={live}
        words={percent}
        top={1}
        lines={[{ name: "KV cache", colour: "--w2", values: series.kv_used }]}
      />
      {drafts && (
        <Series
          title="acceptance length"
          at={at}
          live={live}
          words={fixed}
          top={1}
          lines={[{ name: "tokens a step", colour: "--w4", values: series.acceptance_length }]}
        />
      )}
    </Panel>
  );
}

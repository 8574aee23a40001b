// A job's batches, the latest first.

import { useState } from "preact/hooks";

import { Meter, Panel, Pill } from "../parts/parts";
import { type JobPlace, batchLink } from "../route";
import type { Batch } from "../wire";
import { count, duration, known, many, percent, short } from "../words";

/** Number of rows of one page of the table. */
const ROWS = 50;

export function Batches({ job, batches }: { job: JobPlace; batches: readonly Batch[] }) {
  const [from, setFrom] = useState(0);
  const latest = [...batches].reverse();
  const shown = latest.slice(from, from + ROWS);
  return (
    <Panel title="Batches" aside={many(batches.length, "batch", "batches")}>
      {batches.length === 0 ? (
        <p class="dim">No batch yet. The trainer opens the first batch; in mode batch, the driver opens it after it has read the prompts.</p>
      ) : (
        <div class="table" tabIndex={0} role="region" aria-label="Table of batches">
          <table>
            <thead>
              <tr>
                <th scope="col">batch</th>
                <th scope="col">state</th>
                <th scope="col" class="grow">
                  progress
                </th>
                <th scope="col">left</th>
                <th scope="col">groups</th>
                <th scope="col">requests</th>
                <th scope="col">not ok</th>
                <th scope="col">tokens</th>
                <th scope="col">tokens/s</th>
                <th scope="col">tail</th>
                <th scope="col">mean length</th>
                <th scope="col">longest</th>
                <th scope="col">weights</th>
                <th scope="col">kind</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((batch) => (
                <Row key={batch.id} job={job} batch={batch} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {batches.length > ROWS && (
        <p class="pager">
          <button type="button" disabled={from === 0} onClick={() => setFrom(Math.max(0, from - ROWS))}>
            later
          </button>{" "}
          <button type="button" disabled={from + ROWS >= batches.length} onClick={() => setFrom(from + ROWS)}>
            earlier
          </button>{" "}
          <span class="dim">
            {from + 1} to {Math.min(batches.length, from + ROWS)} of {batches.length}
          </span>
        </p>
      )}
    </Panel>
  );
}

function Row({ job, batch }: { job: JobPlace; batch: Batch }) {
  const { metrics } = batch;
  const lost = metrics.requests_aborted + metrics.requests_infra_failed;
  const progress = metrics.requests > 0 ? batch.progress : null;
  return (
    <tr>
      <th scope="row">
        <a href={batchLink(job, batch.id)}>{batch.id}</a>
      </th>
      <td>
        <Pill word={batch.state} /> {batch.tail && batch.state !== "complete" && <span class="dim">tail</span>}
      </td>
      <td>
        <span class="progress">
          <Meter share={progress} name={`Progress of batch ${batch.id}`} /> <span>{percent(progress)}</span>
        </span>
      </td>
      <td>{batch.progress >= 1 ? "" : duration(batch.eta_seconds)}</td>
      <td>
        {count(metrics.groups_finished)}/{count(known(metrics.groups))}
      </td>
      <td>
        {count(metrics.requests_ok)}/{count(known(metrics.requests))}
      </td>
      <td class={metrics.requests_infra_failed > 0 ? "bad" : ""}>{lost > 0 ? count(lost) : ""}</td>
      <td>{short(metrics.tokens)}</td>
      <td>{short(metrics.tokens_per_second)}</td>
      <td>{metrics.tail_seconds > 0 ? duration(metrics.tail_seconds) : ""}</td>
      <td>{short(metrics.length_mean)}</td>
      <td>{count(metrics.length_max)}</td>
      <td>
        <code>{batch.weights_version}</code>
      </td>
      <td>
        {batch.purpose}
        {batch.priority !== "normal" && `, ${batch.priority}`}
      </td>
    </tr>
  );
}

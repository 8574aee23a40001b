// One batch: its groups, lengths, estimates against true lengths, and the time left.

import { useState } from "preact/hooks";

import { GroupGrid } from "../draw/groups";
import { histogramParts, nearness, paintHistogram, paintScatter } from "../draw/lengths";
import { Picture } from "../draw/picture";
import { Figure, Meter, Panel, Pill } from "../parts/parts";
import { Bone, Shown } from "../parts/states";
import { type JobPlace, groupLink, requestPlace, responseLink, streamPath } from "../route";
import { useStream, whole } from "../stream/use_stream";
import type { BatchView, TailRequest } from "../wire";
import { count, duration, known, many, percent, short } from "../words";

/** Height of a plot, in pixels. */
const PLOT = 220;
/** Number of rows of running responses before "show all": rows take longer to render than all pictures. */
const FIRST_ROWS = 15;

interface BatchPageProps {
  route: { view: "batch"; job: JobPlace; batch: number };
  onLogin(): void;
}

export function BatchPage({ route, onLogin }: BatchPageProps) {
  const stream = useStream(streamPath(route), whole<BatchView>);
  const skeleton = (
    <>
      <Bone width="30%" height={28} />
      <Bone height={72} />
      <Bone height={180} />
      <div class="pair">
        <Bone height={240} />
        <Bone height={240} />
      </div>
    </>
  );
  return (
    <Shown
      stream={stream}
      what={`batch ${route.batch} of ${route.job.namespace}/${route.job.name}`}
      skeleton={skeleton}
      onLogin={onLogin}
    >
      {(view) => <BatchBody job={route.job} view={view} />}
    </Shown>
  );
}

function BatchBody({ job, view }: { job: JobPlace; view: BatchView }) {
  const { batch, histogram, estimates, lengths } = view;
  const near = nearness(estimates, lengths);
  const finished = histogram.counts.reduce((sum, number) => sum + number, 0);
  return (
    <>
      <div class="head">
        <h1>Batch {batch.id}</h1>
        <Pill word={batch.state} />
        {view.in_tail_since != null && batch.state !== "complete" && batch.state !== "acknowledged" && (
          <span class="pill warn">in its tail for {duration(view.now - view.in_tail_since)}</span>
        )}
        {!view.live && <Pill word="ended" />}
        <p class="dim about">
          {batch.purpose} · {batch.priority} priority · weights {batch.weights_version}
          {batch.target && ` · target ${many(batch.target.groups, `${batch.target.count} group`)}`}
        </p>
      </div>
      <Glance view={view} />
      <Groups job={job} view={view} />
      <div class="pair">
        <Panel title="Lengths" aside={many(finished, "finished response")}>
          {finished === 0 ? (
            <p class="dim">No response has finished yet.</p>
          ) : (
            <Picture
              name="Histogram of the lengths of finished responses, in tokens"
              height={PLOT}
              paint={(pen) => paintHistogram(histogram, pen)}
              parts={histogramParts(histogram)}
              hint={`tokens; mean ${short(batch.metrics.length_mean)}, longest ${count(batch.metrics.length_max)}`}
            >
              <table>
                <caption>Lengths of finished responses</caption>
                <tbody>
                  {histogram.counts.map((number, bin) => (
                    <tr key={bin}>
                      <th scope="row">from {histogram.edges[bin]} tokens</th>
                      <td>{number}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Picture>
          )}
        </Panel>
        <Panel title="Estimated and actual length" aside="in tokens; x: actual length, y: estimate">
          {estimates.length === 0 ? (
            <p class="dim">No response with an estimate has finished yet. The first finished response of a group gives the estimate.</p>
          ) : (
            <Picture
              name={`Estimates of ${estimates.length} responses over their lengths`}
              height={PLOT}
              paint={(pen) => paintScatter(estimates, lengths, pen)}
            >
              {near}
            </Picture>
          )}
          {near && <p class="readout">{near}</p>}
        </Panel>
      </div>
      <Tail job={job} view={view} />
    </>
  );
}

function Glance({ view: { batch } }: { view: BatchView }) {
  const { metrics } = batch;
  const lost = metrics.requests_aborted + metrics.requests_infra_failed;
  const progress = metrics.requests > 0 ? batch.progress : null;
  return (
    <section class="panel top" aria-label="At a glance">
      <div class="progress">
        <Meter share={progress} name={`Progress of batch ${batch.id}`} />
        <span class="figures">{progress === null ? "not known" : percent(progress)}</span>
        <span class="figures dim">
          {batch.progress < 1 && batch.eta_seconds != null ? `${duration(batch.eta_seconds)} left` : ""}
        </span>
      </div>
      <dl class="figures-row">
        <Figure name="groups" value={`${count(metrics.groups_finished)}/${count(known(metrics.groups))}`} note="finished" />
        <Figure
          name="requests"
          value={`${count(metrics.requests_ok)}/${count(known(metrics.requests))}`}
          note={lost > 0 ? `ok, ${count(lost)} not ok` : "ok"}
        />
        <Figure name="tokens" value={short(metrics.tokens)} note={`${short(metrics.tokens_per_second)} tokens/s`} />
        <Figure
          name="time"
          value={duration(metrics.seconds)}
          note={metrics.tail_seconds > 0 ? `tail ${duration(metrics.tail_seconds)}` : ""}
        />
        {metrics.drafted_tokens > 0 && (
          <Figure
            name="acceptance length"
            value={metrics.acceptance_length.toFixed(2)}
            note={`${percent(metrics.draft_share)} of tokens drafted`}
          />
        )}
        {batch.wanted > 0 && <Figure name="wanted" value={count(batch.wanted)} note="more groups needed for the target" />}
      </dl>
    </section>
  );
}

function Groups({ job, view }: { job: JobPlace; view: BatchView }) {
  const grid = new GroupGrid(view.groups);
  const { left_out, name } = view.groups;
  // A run that was stopped early has results of only a part of its groups.
  const missing = view.live ? 0 : view.batch.metrics.groups - name.length - left_out;
  const words = [
    many(name.length, "group"),
    left_out > 0 && `${count(left_out)} finished groups are not shown`,
    missing > 0 && `${count(missing)} without a result`,
  ];
  return (
    <Panel title="Groups" aside={words.filter(Boolean).join("; ")}>
      {name.length === 0 ? (
        <p class="dim">No group has been submitted yet.</p>
      ) : (
        <Picture
          name={`Groups: ${grid.summary()}`}
          height={grid.height}
          paint={grid.paint}
          parts={grid.parts((group) => groupLink(job, view.batch.id, group))}
          hint="A cell is a group; its filled part is the share of finished responses. Frame: responses are running. Corner: responses failed."
        >
          {grid.summary()}
        </Picture>
      )}
    </Panel>
  );
}

function Tail({ job, view }: { job: JobPlace; view: BatchView }) {
  const { tail, tail_left_out, now } = view;
  const [all, showAll] = useState(false);
  return (
    <Panel
      title="Expected to end last"
      aside={
        tail_left_out > 0
          ? `${tail.length} of ${count(tail.length + tail_left_out)} running responses`
          : many(tail.length, "running response")
      }
    >
      {tail.length === 0 ? (
        <p class="dim">{view.live ? "No response is running." : "All responses have ended."}</p>
      ) : (
        <div class="table" tabIndex={0} role="region" aria-label="Table of running responses">
          <table>
            <thead>
              <tr>
                <th scope="col">response</th>
                <th scope="col">worker</th>
                <th scope="col">ends in</th>
                <th scope="col" class="grow">
                  share of the expected tokens
                </th>
                <th scope="col">tokens</th>
                <th scope="col">expected</th>
                <th scope="col">since</th>
                <th scope="col">chunks</th>
              </tr>
            </thead>
            <tbody>
              {tail.slice(0, all ? tail.length : FIRST_ROWS).map((each) => (
                <TailRow key={each.request} job={job} each={each} now={now} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {tail.length > FIRST_ROWS && (
        <p class="pager">
          <button type="button" aria-expanded={all} onClick={() => showAll(!all)}>
            {all ? `show the first ${FIRST_ROWS} only` : `show all ${tail.length}`}
          </button>
        </p>
      )}
    </Panel>
  );
}

function TailRow({ job, each, now }: { job: JobPlace; each: TailRequest; now: number }) {
  const place = requestPlace(each.request);
  return (
    <tr>
      <th scope="row">
        {place ? (
          <a href={responseLink(job, place.batch, place.group, place.index)}>{`${place.group}/${place.index}`}</a>
        ) : (
          each.request
        )}
      </th>
      <td>
        <code>{each.worker}</code>
      </td>
      <td>{duration(each.ends_in)}</td>
      <td>
        <Meter share={each.expected ? each.tokens / each.expected : null} name={`Progress of ${each.request}`} />
      </td>
      <td>{count(each.tokens)}</td>
      <td class={each.expected != null && each.tokens > each.expected ? "warn" : ""}>{count(each.expected)}</td>
      <td>{duration(now - each.since)}</td>
      <td>{count(each.chunks)}</td>
    </tr>
  );
}

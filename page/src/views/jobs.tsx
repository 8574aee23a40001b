// All jobs that the viewer may see, a card each.

import { Figure, Meter, Pill } from "../parts/parts";
import { Bone, Empty, Shown } from "../parts/states";
import { jobLink, streamPath } from "../route";
import { useStream, whole } from "../stream/use_stream";
import type { JobCard, JobCards } from "../wire";
import { count, duration, fixed, many, percent, short } from "../words";

const FROM_HERE = [1, 2, 3];
const BAD = new Set(["failed", "unknown"]);

export function JobsPage({ onLogin }: { onLogin(): void }) {
  const stream = useStream(streamPath({ view: "jobs" }), whole<JobCards>);
  const skeleton = (
    <div class="cards">
      {FROM_HERE.map((each) => (
        <div class="panel" key={each}>
          <Bone width="40%" height={20} />
          <Bone height={14} />
          <Bone height={60} />
        </div>
      ))}
    </div>
  );
  return (
    <Shown stream={stream} what="the jobs" skeleton={skeleton} onLogin={onLogin}>
      {({ jobs, left_out }) =>
        jobs.length === 0 ? (
          <Empty title="No jobs">
            <p>Jobs appear here as soon as they exist. Start one:</p>
            <p>
              <code>kubectl apply -f job.yaml</code> or <code>openseer run job.yaml --page</code>
            </p>
            <p class="dim">The list contains the jobs whose batches your token may read.</p>
          </Empty>
        ) : (
          <>
            <h1>{many(jobs.length + left_out, "job")}</h1>
            <ul class="cards">
              {jobs.map((card) => (
                <li key={`${card.namespace}/${card.name}`}>
                  <Card card={card} />
                </li>
              ))}
            </ul>
            {left_out > 0 && <p class="dim">{many(left_out, "more job is", "more jobs are")} not shown.</p>}
          </>
        )
      }
    </Shown>
  );
}

function Card({ card }: { card: JobCard }) {
  const name = `${card.namespace}/${card.name}`;
  return (
    <article class={`panel card ${card.state}`} aria-label={name}>
      <header>
        <h2>
          <a href={jobLink(card)}>
            <span class="dim">{card.namespace}/</span>
            {card.name}
          </a>
        </h2>
        <span class="dim">{card.mode}</span>
        <Pill word={card.state} />
      </header>
      <p class={`reason ${BAD.has(card.state) ? "bad" : ""}`}>{card.reason || " "}</p>
      {card.state !== "unknown" && (
        <>
          <Progress card={card} />
          <CardFigures card={card} />
        </>
      )}
    </article>
  );
}

export function Progress({ card }: { card: JobCard }) {
  const rest = card.eta_seconds == null ? "" : `${duration(card.eta_seconds)} left`;
  return (
    <div class="progress">
      <Meter share={card.progress} name={`Progress of ${card.name}`} />
      <span class="figures">{percent(card.progress)}</span>
      <span class="figures dim">{rest}</span>
    </div>
  );
}

export function CardFigures({ card }: { card: JobCard }) {
  const gpu = card.idle_gpu_seconds + card.busy_gpu_seconds;
  const over = card.state === "finished" || card.state === "failed";
  const wanted = card.workers_wanted || card.workers;
  return (
    <dl class="figures-row">
      {over ? (
        <Figure name="workers" value={count(card.workers)} />
      ) : (
        <Figure name="workers" value={`${count(card.workers_ready)}/${count(wanted)}`} note="ready" />
      )}
      <Figure name="tokens/s" value={short(card.tokens_per_second)} note={`${short(card.tokens)} in all`} />
      {!over && (
        <Figure name="requests" value={short(card.running)} note={`running, ${short(card.waiting)} waiting`} />
      )}
      <Figure
        name="acceptance length"
        value={fixed(card.acceptance_length)}
        note={card.acceptance_length == null ? "no drafts" : "tokens a step"}
      />
      <Figure
        name="idle GPU time"
        value={duration(gpu > 0 ? card.idle_gpu_seconds : null)}
        note={gpu > 0 ? `${percent(card.idle_gpu_seconds / gpu)} of ${duration(gpu)}` : ""}
      />
    </dl>
  );
}

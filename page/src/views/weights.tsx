// The fleet's weights version, and the progress of the current weights transaction.

import { Panel } from "../parts/parts";
import type { Transaction } from "../wire";
import { duration } from "../words";

/** Phases of a weights transaction in their order. */
const WAY = ["prefetch", "quiesce", "load", "commit", "done"];
/** Limit of the workers that a list names. */
const MOST_NAMES = 12;

interface WeightsProps {
  version: string;
  transaction: Transaction | null;
  now: number;
}

export function WeightsPanel({ version, transaction, now }: WeightsProps) {
  return (
    <Panel title="Weights" aside={<code>{version || "–"}</code>}>
      {transaction ? <Steps transaction={transaction} now={now} /> : <p class="dim">No weights have been published yet.</p>}
    </Panel>
  );
}

function Steps({ transaction, now }: { transaction: Transaction; now: number }) {
  const { phase, seconds } = transaction;
  const off = phase === "rollback" || phase === "failed";
  const way = off
    ? [...WAY.slice(0, -1).filter((each) => each in seconds), "rollback", ...(phase === "failed" ? ["failed"] : [])]
    : WAY;
  const place = way.indexOf(phase);
  const ended = transaction.finished_at != null;
  const others = transaction.waiting_for;
  return (
    <>
      <p>
        {transaction.adapter && <>adapter {transaction.adapter}: </>}
        <code>{transaction.previous || "nothing"}</code> → <code>{transaction.version}</code>{" "}
        <span class="dim">
          ({transaction.mode}
          {transaction.attempt > 1 && `, attempt ${transaction.attempt}`})
        </span>
      </p>
      <ol class="steps" aria-label="Phases of the transaction">
        {way.map((each, index) => (
          <li
            key={each}
            class={
              index < place || (ended && index === place && !off)
                ? "past"
                : index === place
                  ? off
                    ? "bad"
                    : "present"
                  : ""
            }
            {...(index === place ? { "aria-current": "step" } : {})}
          >
            {each}
            <span class="dim figures">{each in seconds ? duration(seconds[each]) : " "}</span>
          </li>
        ))}
      </ol>
      {transaction.message && <p class={off ? "bad" : ""}>{transaction.message}</p>}
      <p class="dim">
        {ended
          ? `Ended ${duration(now - transaction.finished_at!)} ago, `
          : `Began ${duration(now - transaction.started_at)} ago`}
        {ended && `took ${duration(transaction.finished_at! - transaction.started_at)}`}
        {!ended &&
          transaction.deadline != null &&
          `, at most ${duration(transaction.deadline - now)} more in this phase`}
        .
      </p>
      {!ended && others.length > 0 && (
        <p>
          Waits for <strong>{others.slice(0, MOST_NAMES).join(", ")}</strong>
          {others.length > MOST_NAMES && ` and ${others.length - MOST_NAMES} more`}
        </p>
      )}
      {transaction.workers.some((worker) => worker.error) && (
        <ul class="attention">
          {transaction.workers
            .filter((worker) => worker.error)
            .slice(0, MOST_NAMES)
            .map((worker) => (
              <li key={worker.worker}>
                {worker.worker}: {worker.error}
              </li>
            ))}
        </ul>
      )}
    </>
  );
}

// One response: all of its tokens, with the worker and time of each.

import { useEffect, useRef, useState } from "preact/hooks";

import {
  type Ribbons,
  allWorkers,
  paintRibbons,
  ribbonSpan,
  ribbonsHeight,
  tokenAt,
  workerColour,
} from "../draw/ribbons";
import { type Parts, Picture } from "../draw/picture";
import {
  type GatheredGroup,
  type Response,
  chunkOf,
  gather,
  meanLogprob,
  versionsOf,
  workerName,
  workersOf,
} from "../group/responses";
import { Legend, Tokens, wordOf } from "../group/tokens";
import { Figure, Panel, Pill } from "../parts/parts";
import { Bone, Empty, Shown } from "../parts/states";
import { type JobPlace, groupLink, streamPath } from "../route";
import { useStream } from "../stream/use_stream";
import type { ChunkInfo } from "../wire";
import { count, duration, many, short } from "../words";
import { Prompt } from "./group";

/** Number of tokens of a block; the document contains a block's text only near the visible part. */
const BLOCK = 256;
/** Number of the last chunks that are listed. */
const MOST_CHUNKS = 100;
/** Height of the ribbon, in pixels. */
const RIBBON = 34;

interface ResponsePageProps {
  route: { view: "response"; job: JobPlace; batch: number; group: string; index: number };
  onLogin(): void;
}

export function ResponsePage({ route, onLogin }: ResponsePageProps) {
  const stream = useStream(streamPath(route), gather);
  const skeleton = (
    <>
      <Bone width="30%" height={28} />
      <Bone height={60} />
      <Bone height={400} />
    </>
  );
  return (
    <Shown
      stream={stream}
      what={`response ${route.index} of group ${route.group}`}
      skeleton={skeleton}
      onLogin={onLogin}
    >
      {(view) => {
        const response = view.responses.find((each) => each.index === route.index);
        return response ? (
          <ResponseBody route={route} view={view} response={response} />
        ) : (
          <Empty title={`No response ${route.index}`}>
            <a href={groupLink(route.job, route.batch, route.group)}>The group {route.group}</a>
          </Empty>
        );
      }}
    </Shown>
  );
}

interface BodyProps {
  route: ResponsePageProps["route"];
  view: GatheredGroup;
  response: Response;
}

function ResponseBody({ route, view, response }: BodyProps) {
  const [chosen, setChosen] = useState(-1);
  const mean = meanLogprob(response);
  const workers = workersOf(response);
  const runs = response.state === "running" || response.state === "waiting";
  return (
    <>
      <div class="head">
        <h1>
          <a href={groupLink(route.job, route.batch, route.group)}>{route.group}</a> / {response.index}
        </h1>
        <Pill word={response.state} />
        {!view.live && <Pill word="ended" />}
        <p class="dim about">{response.reason}</p>
      </div>
      <section class="panel top" aria-label="At a glance">
        <dl class="figures-row">
          <Figure name="tokens" value={count(response.length)} note={`of at most ${count(view.max_tokens)}`} />
          <Figure
            name="estimate"
            value={count(runs ? view.estimate : response.expected)}
            note={runs ? "from finished siblings" : "from the siblings that had finished before it"}
          />
          <Figure
            name="mean probability"
            value={mean == null ? "–" : `${(100 * Math.exp(mean)).toFixed(1)} %`}
            note={mean == null ? "not recorded" : `log ${mean.toFixed(3)}`}
          />
          <Figure
            name="workers"
            value={count(new Set(workers).size)}
            note={`${many(response.chunks.length, "chunk")} · ${many(Math.max(0, workers.length - 1), "move")}`}
          />
          <Figure
            name="weights"
            value={versionsOf(response).join(", ") || "–"}
            note={response.turn > 0 ? `turn ${response.turn}` : ""}
          />
        </dl>
      </section>
      <Prompt text={view.prompt} />
      {view.note && <p class="dim">{view.note}</p>}
      <Panel
        title="Tokens"
        aside={
          response.tokens.length < response.length
            ? `${count(response.tokens.length)} of ${count(response.length)} received`
            : ""
        }
      >
        {response.length === 0 ? (
          <p class="dim">No tokens yet.</p>
        ) : (
          <>
            <ResponseRibbon view={view} response={response} chosen={chosen} onChoose={setChosen} />
            <Legend logprobs={response.logprobs !== null} siblings={false} />
            <Blocks view={view} response={response} chosen={chosen} onChoose={setChosen} />
          </>
        )}
      </Panel>
      <Chunks response={response} />
    </>
  );
}

interface TokenChoice {
  view: GatheredGroup;
  response: Response;
  chosen: number;
  onChoose(place: number): void;
}

function ResponseRibbon({ view, response, chosen, onChoose }: TokenChoice) {
  const responses = [response];
  const span = ribbonSpan(responses, view.estimate, view.max_tokens);
  const ribbons: Ribbons = {
    responses,
    agreement: view.agreement,
    span,
    rowHeight: RIBBON,
    window: chosen < 0 ? null : [chosen, chosen + 1],
  };
  const parts: Parts = {
    count: response.tokens.length,
    key: String,
    find: Number,
    at: (x, _y, size) => Math.min(response.tokens.length - 1, Math.max(-1, tokenAt(x, size.width, span))),
    words: (place) => tokenWords(response, place),
    page: BLOCK,
    press: (x, width) => onChoose(Math.min(response.tokens.length - 1, Math.max(0, tokenAt(x, width, span)))),
    onKey: onChoose,
  };
  return (
    <Picture
      name={`The ${many(response.tokens.length, "token")} of the response`}
      height={ribbonsHeight(1, RIBBON)}
      paint={(pen) => paintRibbons(ribbons, { ...pen, chosen: -1 })}
      parts={parts}
      hint={
        chosen >= 0
          ? tokenWords(response, chosen)
          : "Point at a token or select one with the arrow keys. The colour below shows the worker that generated it."
      }
    />
  );
}

function tokenWords(response: Response, place: number): string {
  const logprob = response.logprobs?.[place];
  const chunk = chunkOf(response.chunks, place);
  const facts = [
    `token ${count(place)}: ${JSON.stringify(wordOf(response, place).trimEnd() || wordOf(response, place))}`,
    response.text && `id ${response.tokens[place]}`,
    logprob != null && `probability ${(100 * Math.exp(logprob)).toPrecision(3)} %`,
    chunk
      ? chunk.event === "append"
        ? "appended"
        : `${workerName(chunk.worker)}, weights ${chunk.version}`
      : response.worker,
  ];
  return facts.filter(Boolean).join(" · ");
}

function Blocks({ view, response, chosen, onChoose }: TokenChoice) {
  const blocks = [];
  for (let from = 0; from < response.tokens.length; from += BLOCK) {
    blocks.push(<Block key={from} from={from} view={view} response={response} chosen={chosen} />);
  }
  const point = (event: MouseEvent): void => {
    const token = (event.target as HTMLElement).dataset["token"];
    if (token !== undefined) onChoose(Number(token));
  };
  return (
    <div class="blocks" onClick={point} onMouseOver={point}>
      {blocks}
    </div>
  );
}

interface BlockProps {
  from: number;
  view: GatheredGroup;
  response: Response;
  chosen: number;
}

/** A block of tokens. It keeps its height without its text, so that the page does not scroll. */
function Block({ from, view, response, chosen }: BlockProps) {
  const box = useRef<HTMLDivElement>(null);
  const height = useRef(120);
  const [near, setNear] = useState(from === 0);
  useEffect(() => {
    const watch = new IntersectionObserver(
      ([entry]) => {
        if (!entry) return;
        if (!entry.isIntersecting) height.current = entry.boundingClientRect.height;
        setNear(entry.isIntersecting);
      },
      { rootMargin: "600px" },
    );
    watch.observe(box.current!);
    return () => watch.disconnect();
  }, []);
  const inside = chosen >= from && chosen < from + BLOCK;
  useEffect(() => {
    if (inside) box.current?.scrollIntoView({ block: "nearest" });
  }, [inside]);
  return (
    <div class="block" ref={box}>
      <span class="place dim">{count(from)}</span>
      <div class="text" style={near ? {} : { minHeight: `${height.current}px` }}>
        {near && (
          <Tokens response={response} agreement={view.agreement} from={from} to={from + BLOCK} each chosen={chosen} />
        )}
      </div>
    </div>
  );
}

function Chunks({ response }: { response: Response }) {
  const { chunks } = response;
  const workers = allWorkers([response]);
  const shown = chunks.slice(-MOST_CHUNKS);
  return (
    <Panel
      title="Chunks"
      aside={
        chunks.length > shown.length
          ? `the last ${shown.length} of ${count(chunks.length)}`
          : many(chunks.length, "chunk")
      }
    >
      {chunks.length === 0 ? (
        <p class="dim">No chunk has ended yet.</p>
      ) : (
        <div class="table" tabIndex={0} role="region" aria-label="Table of chunks">
          <table>
            <thead>
              <tr>
                <th scope="col">worker</th>
                <th scope="col">position</th>
                <th scope="col">tokens</th>
                <th scope="col">duration</th>
                <th scope="col">tokens/s</th>
                <th scope="col">wait before</th>
                <th scope="col">ended by</th>
                <th scope="col">weights</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((chunk, place) => (
                <ChunkRow
                  key={`${chunk.start} ${chunk.claimed_at}`}
                  chunk={chunk}
                  before={shown[place - 1]}
                  workers={workers}
                />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

function ChunkRow({
  chunk,
  before,
  workers,
}: {
  chunk: ChunkInfo;
  before: ChunkInfo | undefined;
  workers: readonly string[];
}) {
  const seconds = chunk.ended_at - chunk.claimed_at;
  const tokens = chunk.end - chunk.start;
  return (
    <tr>
      <th scope="row">
        <span
          class="swatch bar"
          style={{ backgroundColor: `var(${workerColour(workerName(chunk.worker), workers)})` }}
        />{" "}
        {workerName(chunk.worker) || "trainer"}
        <span class="dim">{chunk.worker.slice(workerName(chunk.worker).length)}</span>
      </th>
      <td>
        {count(chunk.start)} to {count(chunk.end)}
      </td>
      <td>{count(tokens)}</td>
      <td>{duration(seconds)}</td>
      <td>{seconds > 0 && tokens > 0 ? short(tokens / seconds) : ""}</td>
      <td>{before ? duration(Math.max(0, chunk.claimed_at - before.ended_at)) : ""}</td>
      <td>{chunk.event.replace("_", " ")}</td>
      <td>
        <code>{chunk.version}</code>
      </td>
    </tr>
  );
}

// One group: its responses side by side, updated while they are generated.

import { useState } from "preact/hooks";

import { type Ribbons, paintRibbons, ribbonSpan, ribbonsHeight, tokenAt } from "../draw/ribbons";
import { type Parts, Picture } from "../draw/picture";
import { MOST_COMPARED } from "../group/agreement";
import { type GatheredGroup, type Response, gather, versionsOf, workersOf } from "../group/responses";
import { Legend, Tokens } from "../group/tokens";
import { Panel, Pill } from "../parts/parts";
import { Bone, Shown } from "../parts/states";
import { Windowed } from "../parts/windowed";
import { type JobPlace, responseLink, streamPath } from "../route";
import { useStream } from "../stream/use_stream";
import { count, many, percent } from "../words";

/** Number of tokens of each response that are shown side by side. */
const SHOWN = 400;
/** Width of a response's column with its margin, in pixels. */
const COLUMN = 348;
/** Number of a response's last workers that are named. */
const MOST_WORKERS = 6;

interface GroupViewProps {
  route: { view: "group"; job: JobPlace; batch: number; group: string };
  onLogin(): void;
}

export function GroupView({ route, onLogin }: GroupViewProps) {
  const stream = useStream(streamPath(route), gather);
  const skeleton = (
    <>
      <Bone width="30%" height={28} />
      <Bone height={150} />
      <div class="pair">
        <Bone height={360} />
        <Bone height={360} />
      </div>
    </>
  );
  return (
    <Shown stream={stream} what={`group ${route.group} of batch ${route.batch}`} skeleton={skeleton} onLogin={onLogin}>
      {(view) => <GroupBody route={route} view={view} />}
    </Shown>
  );
}

function GroupBody({ route, view }: { route: GroupViewProps["route"]; view: GatheredGroup }) {
  const { responses, agreement } = view;
  const runs = view.live && responses.some((response) => response.state === "running");
  // null: follows the latest tokens while a response is running.
  const [from, setFrom] = useState<number | null | undefined>(undefined);
  const follows = from === null || (from === undefined && runs);
  const begin = follows ? null : (from ?? 0);
  const scored = responses.some((response) => response.logprobs !== null);
  const link = (index: number): string => responseLink(route.job, route.batch, route.group, index);
  const done = responses.filter((response) => response.state !== "running" && response.state !== "waiting").length;
  return (
    <>
      <div class="head">
        <h1>{view.name}</h1>
        <Pill word={runs ? "running" : done === responses.length ? "done" : "waiting"} />
        {!view.live && <Pill word="ended" />}
        <p class="dim about">
          {done} of {many(responses.length + view.left_out, "response")} done · prompt {count(view.prompt_tokens)}{" "}
          tokens · at most {count(view.max_tokens)} ·{" "}
          {view.estimate == null ? "no estimate yet" : `estimate ${count(view.estimate)} tokens`}
          {view.left_out > 0 && ` · ${count(view.left_out)} responses are not shown`}
        </p>
      </div>
      <Prompt text={view.prompt} />
      {view.note && <p class="dim">{view.note}</p>}
      <Panel title="Side by side" aside={agreementWords(view)}>
        {responses.length === 0 ? (
          <p class="dim">This group has no responses yet.</p>
        ) : (
          <>
            <RibbonPicture view={view} begin={begin} link={link} onPlace={setFrom} />
            <Controls view={view} begin={begin} onPlace={setFrom} />
            <Legend logprobs={scored} siblings={responses.length > 1} />
            <Windowed
              name="Responses side by side"
              class="columns"
              direction="right"
              count={responses.length}
              size={COLUMN}
              item={(place) => {
                const response = responses[place]!;
                const first = begin ?? Math.max(0, response.tokens.length - SHOWN);
                return (
                  <article
                    class="column"
                    key={response.index}
                    aria-label={`Response ${response.index}`}
                    style={{ width: `${COLUMN - 8}px` }}
                  >
                    <ColumnHead response={response} link={link(response.index)} />
                    <div
                      class={`text ${begin === null ? "end" : ""}`}
                      tabIndex={0}
                      role="group"
                      aria-label={`Text of response ${response.index}`}
                    >
                      <div>
                        {first > 0 && <span class="dim">… </span>}
                        <Tokens response={response} agreement={agreement} from={first} to={first + SHOWN} />
                        {first >= response.length && response.length > 0 && (
                          <span class="dim">ended before token {count(first)}</span>
                        )}
                        {first + SHOWN < response.length && <span class="dim"> …</span>}
                        {response.state === "running" && first + SHOWN >= response.length && (
                          <span class="cursor" aria-hidden="true" />
                        )}
                      </div>
                    </div>
                  </article>
                );
              }}
            />
          </>
        )}
      </Panel>
    </>
  );
}

function agreementWords({ agreement, responses }: GatheredGroup): string {
  if (responses.length < 2) return "";
  const limit = agreement.compared >= MOST_COMPARED ? `; the first ${count(MOST_COMPARED)} tokens are compared` : "";
  return `${agreement.prefix > 0 ? `all begin with the same ${many(agreement.prefix, "token")}` : "no common beginning"}${limit}`;
}

export function Prompt({ text }: { text: string }) {
  return (
    <details class="panel prompt" open={text.length < 400}>
      <summary>Prompt</summary>
      <pre tabIndex={0}>{text}</pre>
    </details>
  );
}

interface RibbonProps {
  view: GatheredGroup;
  begin: number | null;
  link(index: number): string;
  onPlace(from: number): void;
}

function RibbonPicture({ view, begin, link, onPlace }: RibbonProps) {
  const { responses, agreement } = view;
  const rowHeight = responses.length > 24 ? 9 : responses.length > 12 ? 12 : 16;
  const span = ribbonSpan(responses, view.estimate, view.max_tokens);
  const ribbons: Ribbons = {
    responses,
    agreement,
    span,
    rowHeight,
    window: begin === null ? null : [begin, begin + SHOWN],
  };
  const parts: Parts = {
    count: responses.length,
    key: (row) => String(responses[row]!.index),
    at: (_x, y) => (Math.floor(y / rowHeight) < responses.length ? Math.floor(y / rowHeight) : -1),
    words: (row) => rowWords(view, responses[row]!),
    link: (row) => link(responses[row]!.index),
    press: (x, width) => onPlace(Math.max(0, Math.min(span - SHOWN, tokenAt(x, width, span) - SHOWN / 2))),
  };
  return (
    <Picture
      name={`Responses over their tokens, ${many(responses.length, "ribbon")}`}
      height={ribbonsHeight(responses.length, rowHeight)}
      paint={(pen) => paintRibbons(ribbons, pen)}
      parts={parts}
      hint="A ribbon is a response. Shade: probability of the tokens; line above: tokens in common with a sibling; colour below: worker. Click to read at that place."
    >
      <table>
        <caption>Responses</caption>
        <tbody>
          {responses.map((response) => (
            <tr key={response.index}>
              <th scope="row">{response.index}</th>
              <td>{rowWords(view, response)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Picture>
  );
}

function rowWords({ agreement }: GatheredGroup, response: Response): string {
  const { index, state, length } = response;
  const shared = agreement.share(index);
  const facts = [
    `${count(length)} tokens`,
    workersOf(response).join(" → "),
    many(response.chunks.length, "chunk"),
    shared > 0 && `${percent(shared)} in common with siblings`,
  ];
  return `response ${index}: ${state}, ${facts.filter(Boolean).join(", ")}`;
}

function Controls({
  view,
  begin,
  onPlace,
}: {
  view: GatheredGroup;
  begin: number | null;
  onPlace(from: number | null): void;
}) {
  const longest = view.responses.reduce((length, response) => Math.max(length, response.length), 0);
  const last = Math.max(0, longest - SHOWN);
  const at = begin ?? last;
  const words =
    begin === null ? `the last ${SHOWN} tokens of each` : `tokens ${count(begin)} to ${count(begin + SHOWN)}`;
  return (
    <p class="pager">
      <button type="button" aria-pressed={begin === null} onClick={() => onPlace(null)}>
        Follow the ends
      </button>{" "}
      <button type="button" aria-pressed={begin === 0} onClick={() => onPlace(0)}>
        Beginning
      </button>{" "}
      <button type="button" disabled={at === 0} onClick={() => onPlace(Math.max(0, at - SHOWN))}>
        ← earlier
      </button>{" "}
      <button type="button" disabled={begin === null || at >= last} onClick={() => onPlace(Math.min(last, at + SHOWN))}>
        later →
      </button>{" "}
      <span class="dim">{words}</span>
    </p>
  );
}

function ColumnHead({ response, link }: { response: Response; link: string }) {
  const workers = workersOf(response);
  const versions = versionsOf(response);
  return (
    <header>
      <p>
        <a href={link}>response {response.index}</a> <Pill word={response.state} />{" "}
        <span class="figures">
          {count(response.tokens.length)}
          {response.tokens.length < response.length && ` of ${count(response.length)}`} tokens
        </span>
        {response.turn > 0 && <span class="dim"> turn {response.turn}</span>}
      </p>
      <p class="dim" title={workers.join(" → ")}>
        {workers.length === 0 ? "has not run yet" : workers.slice(-MOST_WORKERS).join(" → ")}
        {response.chunks.length > 0 && ` · ${many(response.chunks.length, "chunk")}`}
        {versions.length > 0 && ` · ${versions.join(", ")}`}
      </p>
      {response.reason && <p class={response.state === "failed" ? "bad" : "dim"}>{response.reason}</p>}
    </header>
  );
}

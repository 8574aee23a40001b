// Types of the server's replies, made from core/openseer_core/wire/page.py, which describes each field.
// `OPENSEER_REWRITE=1 pytest tests/contract/test_page_types.py` rewrites this file.

export const WINDOW_SECONDS = 120;

export interface Bars {
  lane: number[];
  row: number[];
  start: number[];
  end: (number | null)[];
  tokens: number[];
  event: string[];
  request: string[];
  left_out: number;
}

export interface Batch {
  id: number;
  job: string;
  opened_at: number;
  state: "open" | "sealed" | "complete" | "acknowledged";
  weights_version: string;
  purpose: "train" | "eval";
  priority: "high" | "normal" | "low";
  target: Target | null;
  target_met: boolean;
  wanted: number;
  progress: number;
  eta_seconds: number | null;
  tail: boolean;
  last_cursor: number;
  acknowledged_cursor: number;
  metrics: BatchMetrics;
  metadata: Record<string, JsonValue>;
}

export interface BatchMetrics {
  groups: number;
  groups_finished: number;
  groups_whole: number;
  groups_valid: number;
  groups_invalid: number;
  groups_carried: number;
  groups_stale: number;
  requests: number;
  requests_ok: number;
  requests_aborted: number;
  requests_infra_failed: number;
  requests_carried_over: number;
  tokens: number;
  seconds: number;
  tokens_per_second: number;
  tail_seconds: number;
  length_mean: number;
  length_max: number;
  drafted_tokens: number;
  accepted_tokens: number;
  draft_share: number;
  acceptance_length: number;
}

export interface BatchView {
  now: number;
  live: boolean;
  batch: Batch;
  groups: GroupColumns;
  histogram: Histogram;
  estimates: number[];
  lengths: number[];
  tail: TailRequest[];
  tail_left_out: number;
  in_tail_since: number | null;
}

export interface ChunkInfo {
  worker: string;
  start: number;
  end: number;
  claimed_at: number;
  ended_at: number;
  event: string;
  version: string;
}

export interface Explained {
  live: boolean;
  seconds: number;
  makespan_seconds: number;
  workers: number;
  worker_seconds: number;
  parts: PartOfTime[];
  findings: StandsOut[];
  tail: string;
  best: Possible | null;
  no_best: string;
  notes: string[];
}

export interface GroupColumns {
  name: string[];
  size: number[];
  waiting: number[];
  running: number[];
  ok: number[];
  failed: number[];
  longest: number[];
  estimate: (number | null)[];
  left_out: number;
}

export interface GroupPage {
  now: number;
  live: boolean;
  batch: number;
  name: string;
  prompt: string;
  prompt_tokens: number;
  max_tokens: number;
  estimate: number | null;
  note: string;
  responses: ResponseView[];
  left_out: number;
}

export interface Histogram {
  edges: number[];
  counts: number[];
}

export interface JobCard {
  namespace: string;
  name: string;
  mode: "batch" | "serve";
  state: "running" | "idle" | "waiting" | "lent" | "finished" | "failed" | "unknown";
  reason: string;
  workers: number;
  workers_ready: number;
  workers_wanted: number;
  running: number;
  waiting: number;
  batches: number;
  progress: number | null;
  eta_seconds: number | null;
  tokens: number;
  tokens_per_second: number | null;
  acceptance_length: number | null;
  idle_gpu_seconds: number;
  busy_gpu_seconds: number;
}

export interface JobCards {
  jobs: JobCard[];
  left_out: number;
}

export interface JobPulse {
  now: number;
  card: JobCard;
  lanes: WorkerLane[];
}

export interface JobView {
  now: number;
  live: boolean;
  card: JobCard;
  model: string;
  engine: string;
  policy: string;
  weights_version: string;
  transaction: Transaction | null;
  lanes: WorkerLane[];
  bars: Bars;
  series: Series;
  batches: Batch[];
}

export type JsonValue = unknown;

export interface PageProblem {
  status: number;
  detail: string;
}

export interface PartOfTime {
  name: string;
  label: string;
  worker_seconds: number | null;
  share: number | null;
}

export interface Possible {
  known: number;
  policy: string;
  oracle: number;
  bound: number;
  itself: number;
  unknown: string[];
}

export interface ResponseView {
  index: number;
  state: "waiting" | "running" | "ok" | "aborted" | "failed" | "cancelled" | "carried";
  reason: string;
  worker: string;
  turn: number;
  length: number;
  expected: number | null;
  start: number;
  tokens: number[];
  text: string[] | null;
  logprobs: (number | null)[] | null;
  chunks: ChunkInfo[];
}

export interface Series {
  at: number[];
  running: number[];
  waiting: number[];
  tokens_per_second: (number | null)[];
  kv_used: number[];
  acceptance_length: (number | null)[];
}

export interface StandsOut {
  cause: string;
  subject: string;
  figure: number;
  says: string;
  advice: string;
  worker_seconds: number;
  share: number;
}

export interface TailRequest {
  request: string;
  worker: string;
  since: number;
  tokens: number;
  expected: number | null;
  ends_in: number | null;
  chunks: number;
}

export interface Target {
  groups: number;
  count: "finished" | "valid";
  rest: "cancel" | "carry";
}

export interface Transaction {
  id: number;
  version: string;
  previous: string;
  mode: "drain" | "keep" | "abort";
  phase: "prefetch" | "quiesce" | "load" | "commit" | "rollback" | "done" | "failed";
  attempt: number;
  started_at: number;
  deadline: number | null;
  finished_at: number | null;
  waiting_for: string[];
  replaced: string[];
  message: string;
  seconds: Record<string, number>;
  workers: WorkerWeights[];
  digest: string | null;
  adapter: string;
}

export interface WorkerLane {
  worker: string;
  state: string;
  version: string;
  device: string;
  node: string;
  silent: boolean;
  seen_seconds_ago: number;
  running: number;
  slots: number;
  kv_used: number;
  tokens: number;
  tokens_per_second: number | null;
  acceptance_length: number | null;
  preemptions: number;
  error: string;
  pace_ratio: number | null;
  slow: string;
  waits: string;
}

export interface WorkerWeights {
  worker: string;
  version: string;
  phase: string;
  attempt: number;
  error: string | null;
  canary_difference: number | null;
  seconds: Record<string, number>;
}

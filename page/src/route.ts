// The view of each address. The route is the part after the #, so the server serves only one page.

import { useEffect, useState } from "preact/hooks";

export type Route =
  | { view: "jobs" }
  | { view: "job"; job: JobPlace }
  | { view: "batch"; job: JobPlace; batch: number }
  | { view: "group"; job: JobPlace; batch: number; group: string }
  | { view: "response"; job: JobPlace; batch: number; group: string; index: number }
  | { view: "nothing" };

export interface JobPlace {
  namespace: string;
  name: string;
}

export function jobLink(job: JobPlace): string {
  return `#/job/${encodeURIComponent(job.namespace)}/${encodeURIComponent(job.name)}`;
}

export function batchLink(job: JobPlace, batch: number): string {
  return `${jobLink(job)}/batch/${batch}`;
}

export function groupLink(job: JobPlace, batch: number, group: string): string {
  return `${batchLink(job, batch)}/group/${encodeURIComponent(group)}`;
}

export function responseLink(job: JobPlace, batch: number, group: string, index: number): string {
  return `${groupLink(job, batch, group)}/${index}`;
}

/** Returns batch, group and index of a request named "batch/group/index"; null for any other name. */
export function requestPlace(request: string): { batch: number; group: string; index: number } | null {
  const [, batch, group, index] = /^(\d{1,15})\/(.+)\/(\d{1,15})$/.exec(request) ?? [];
  return group === undefined ? null : { batch: Number(batch), group, index: Number(index) };
}

export function streamPath(route: Route): string {
  if (route.view === "jobs" || route.view === "nothing") return "api/jobs";
  const job = `api/jobs/${encodeURIComponent(route.job.namespace)}/${encodeURIComponent(route.job.name)}`;
  if (route.view === "job") return job;
  if (route.view === "batch") return `${job}/batches/${route.batch}`;
  const group = `${job}/batches/${route.batch}/group?name=${encodeURIComponent(route.group)}`;
  return route.view === "group" ? group : `${group}&index=${route.index}`;
}

export function explainedPath(job: JobPlace): string {
  return `${streamPath({ view: "job", job })}/explained`;
}

export function parseRoute(hash: string): Route {
  let parts: string[];
  try {
    parts = hash
      .replace(/^#?\/?/, "")
      .split("/")
      .map(decodeURIComponent);
  } catch {
    return { view: "nothing" };
  }
  const [job, namespace, name, batches, batch, groups, group, index] = parts;
  if (parts.length === 1 && (job === "" || job === "jobs")) return { view: "jobs" };
  if (job !== "job" || !namespace || !name || parts.length > 8) return { view: "nothing" };
  const place = { namespace, name };
  if (batches === undefined) return { view: "job", job: place };
  if (batches !== "batch" || !isNumber(batch)) return { view: "nothing" };
  if (groups === undefined) return { view: "batch", job: place, batch: Number(batch) };
  if (groups !== "group" || !group) return { view: "nothing" };
  if (index === undefined) return { view: "group", job: place, batch: Number(batch), group };
  if (!isNumber(index)) return { view: "nothing" };
  return { view: "response", job: place, batch: Number(batch), group, index: Number(index) };
}

function isNumber(text: string | undefined): text is string {
  return text !== undefined && /^\d{1,15}$/.test(text);
}

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = (): void => setHash(location.hash);
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return parseRoute(hash);
}

// The frame around all views: breadcrumbs, theme, logging out.

import { useEffect, useRef, useState } from "preact/hooks";

import { type Route, batchLink, groupLink, jobLink, useRoute } from "./route";
import { Empty } from "./parts/states";
import { useTheme } from "./theme";
import { BatchPage } from "./views/batch";
import { GroupView } from "./views/group";
import { JobPage } from "./views/job";
import { JobsPage } from "./views/jobs";
import { logOut } from "./views/login";
import { ResponsePage } from "./views/response";

export function App() {
  const route = useRoute();
  const [session, setSession] = useState(0);
  const main = useRef<HTMLElement>(null);
  const again = (): void => setSession((before) => before + 1);
  const place = crumbs(route);
  const here = place.map(([words]) => words).join(" / ");
  const first = useRef(true);
  useEffect(() => {
    document.title = here ? `${here} – openseer` : "openseer";
    // Keyboard focus moves to the new view.
    if (!first.current) main.current?.focus({ preventScroll: true });
    if (!first.current) window.scrollTo(0, 0);
    first.current = false;
  }, [here]);
  const skip = (event: MouseEvent): void => {
    event.preventDefault();
    main.current?.focus();
  };
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header class="top-bar">
        <a class="brand" href="#/" {...(place.length === 0 ? { "aria-current": "page" } : {})}>
          <span class="mark" aria-hidden="true" /> openseer
        </a>
        <nav aria-label="Breadcrumbs">
          <ol>
            {place.map(([words, link], depth) => (
              <li key={link}>
                <a href={link} {...(depth === place.length - 1 ? { "aria-current": "page" } : {})}>
                  {words}
                </a>
              </li>
            ))}
          </ol>
        </nav>
        <ThemeButton />
        <button type="button" class="plain log-out" onClick={() => void logOut().then(again, again)}>
          Log out
        </button>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <View key={`${session} ${here}`} route={route} onLogin={again} />
      </main>
    </>
  );
}

function View({ route, onLogin }: { route: Route; onLogin(): void }) {
  switch (route.view) {
    case "jobs":
      return <JobsPage onLogin={onLogin} />;
    case "job":
      return <JobPage route={route} onLogin={onLogin} />;
    case "batch":
      return <BatchPage route={route} onLogin={onLogin} />;
    case "group":
      return <GroupView route={route} onLogin={onLogin} />;
    case "response":
      return <ResponsePage route={route} onLogin={onLogin} />;
    case "nothing":
      return (
        <Empty title="No such view">
          <p>No view of this page has this address.</p>
          <p>
            <a href="#/">All jobs</a>
          </p>
        </Empty>
      );
  }
}

function crumbs(route: Route): [string, string][] {
  if (route.view === "jobs" || route.view === "nothing") return [];
  const found: [string, string][] = [[`${route.job.namespace}/${route.job.name}`, jobLink(route.job)]];
  if (route.view === "job") return found;
  found.push([`batch ${route.batch}`, batchLink(route.job, route.batch)]);
  if (route.view === "batch") return found;
  found.push([route.group, groupLink(route.job, route.batch, route.group)]);
  if (route.view === "response") found.push([`response ${route.index}`, location.hash]);
  return found;
}

function ThemeButton() {
  const [theme, next] = useTheme();
  return (
    <button type="button" class="plain" onClick={next} title="Theme: system, light, dark">
      {{ system: "◐", light: "☀", dark: "☾" }[theme]} <span class="wide">{theme}</span>
      <span class="unseen"> theme; change it</span>
    </button>
  );
}

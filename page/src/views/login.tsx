// The login form: it sends the token once; the server returns a cookie that lasts an hour and that scripts cannot read.

import { useState } from "preact/hooks";

import { problemOf } from "../stream/connection";

export function Login({ onLogin, why }: { onLogin(): void; why: string }) {
  const [problem, setProblem] = useState(why);
  const [busy, setBusy] = useState(false);
  const send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const token = String(new FormData(form).get("token") ?? "").trim();
    setBusy(true);
    const failed = await logIn(token);
    setBusy(false);
    form.reset();
    if (failed === null) onLogin();
    else setProblem(failed);
  };
  return (
    <form class="login panel" onSubmit={(event) => void send(event as unknown as SubmitEvent)}>
      <h2>Log in</h2>
      <label for="token">Token</label>
      <input
        id="token"
        name="token"
        type="password"
        autocomplete="off"
        required
        autofocus
        aria-describedby="where problem"
      />
      <p id="problem" class="problem" role="alert">
        {problem}
      </p>
      <button type="submit" disabled={busy}>
        {busy ? "Logging in …" : "Log in"}
      </button>
      <div id="where" class="dim">
        <p>How to get a token:</p>
        <ul>
          <li>
            <code>openseer serve</code> writes the token into the run's folder: <code>cat runs/NAME/token</code>;{" "}
            <code>openseer run --page</code> and <code>openseer view</code> print it when they start
          </li>
          <li>
            in a cluster, use the token of a ServiceAccount that may read the jobs' batches:{" "}
            <code>kubectl create token NAME</code>
          </li>
        </ul>
        <p>The token is sent to this server only. The browser keeps it for an hour, in a cookie that scripts cannot read.</p>
      </div>
    </form>
  );
}

/** Sends the token. Returns the reason of a refusal; null after a success. */
async function logIn(token: string): Promise<string | null> {
  try {
    const answer = await fetch("login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token }),
    });
    return answer.ok ? null : (await problemOf(answer)).detail || "The server did not accept the token.";
  } catch {
    return "The server does not answer.";
  }
}

export async function logOut(): Promise<void> {
  await fetch("logout", { method: "POST" });
}

"""The weights that a worker serves: their files, and the steps of a transaction.

New weights have to reach every worker, and every response has to name the version of each token. But a worker may die,
restart or join in any phase, and may miss a phase between two heartbeats. So a worker follows no sequence of commands.
In each pass of the worker's loop, `served.ServedWeights.advance` gives two values to a pure function, `next_step`
(core's weights/worker_step.py): the fleet spec (the version to serve and the phase of a transaction) and the worker's
own state (the loaded version, the transaction whose files it has read, the attempt that failed). The result is one
step. Slow steps run as tasks beside the loop; while a task changes the weights, the worker claims no request.
Heartbeats report the state, and the batch controller enters the next phase once every participant has confirmed the
present phase.

Example: the fleet serves v3, transaction 7 publishes v4 in mode keep, and the worker runs 12 requests.

  phase     loaded  files of 7  running  step
  prefetch  v3      -           12       claims; fetches v4 and takes its digest
  prefetch  v3      read        12       claims; confirms prefetch, with the digest
  quiesce   v3      read        12       gives back: aborts all requests, their tokens are kept
  quiesce   v3      read        0        confirms quiesce
  load      v3      read        0        loads v4 in place, scores eight tokens and the canary
  load      v4      read        0        confirms load
  commit    v4      read        0        nothing: the fleet spec's version is v4 now
  done      v4      read        0        claims requests of v4

If the engine's load fails, the state is: no version, failed (7, attempt 0, load). The next step is empty, so that the
load is not repeated, and the report has the error. The controller starts attempt 1, or enters rollback, in which the
worker loads v3 and confirms. If v3 cannot be loaded either, the worker drains, and its successor loads v3. A worker
that boots in the load phase has the job's own model, so it loads v4, too. A worker that boots later loads v4 before its
first claim.

Consequences: every step may be repeated or missed, and a worker claims only for the version that it has loaded. A
version is identified by its content: files are checked against the digest before each load (docs/decisions/0018). An
adapter is loaded beside the running requests. docs/decisions/0009 gives the reasons; core's weights/transaction.py is
the controller's part.

Read `served`, `of_job`, `folders`, `temporary`, `fetching`, `peers`, `passing`, `hashing`, `files`, `adapter_files`,
`scores`; `receiving` and `received_files` receive weights from a trainer's memory. Tests: tests/worker/weights.
"""

"""Live batches, which all compatible routes use: requests that arrive one by one become groups of a batch.

Problem: a client of a compatible route sends single requests and waits on each connection. The queue knows only groups
in batches, and only a group has a probe, a length estimate and common drafts.

Idea: each API process opens *live batches*, one per served weights version. Live requests with the same prompt and
sampling parameters (the seed apart) form one group: without a name within 30 s of the first, up to 256 of them; with a
name (`group_id`) up to 1024. While one write to the store runs, the next requests gather, so that a burst is one write.
One task per batch reads its results stream and resolves each live request.

Example: eight requests with one prompt arrive. The first becomes the group live-1 of one request, its probe; the other
seven arrive during that write, and one `grow` makes it a group of eight. The probe ends with 900 tokens, so 900 is the
estimate for the seven. A request with the same prompt after 40 s begins the group live-2.

A batch takes no new groups after 256 groups, after 60 s, after 5 s without waiting requests, or when its version is not
served any longer. It is sealed when no request waits, or 30 s later, and deleted after its last result is delivered.
If the process dies, its callers lose their connections, and another process deletes its batches.

Read `live_request`, `groups`, `batch`, `requests`, `serving`; `sampling`, `refused_fields` and `refusals` check fields;
`orphans` deletes the batches of dead processes. Tests: tests/api/compat.
"""

"""Live batches, which all compatible routes use: requests that arrive one by one become groups of a batch.

Problem: a client of a compatible route sends single requests and waits on each connection. The queue contains only
groups in batches, and only a group has a probe, a length estimate and common drafts.

Idea: each API process opens *live batches*, one per served weights version. Live requests with the same prompt and
sampling parameters (except the seed) form one group. A group without a name takes up to 256 requests, within 30 s of
its first one; a group with a name (`group_id`) takes up to 1024. Requests that arrive during a write to the store are
written together by the next one. One task per batch reads its results stream and resolves each live request.

Example: eight requests with one prompt arrive. The first becomes the group live-1 of one request, its probe; the other
seven arrive during that write, and one `grow` makes it a group of eight. The probe ends with 900 tokens, so 900 is the
estimate for the seven. A request with the same prompt after 40 s begins the group live-2.

A batch takes no new groups after 256 groups, after 60 s, after 5 s without unfinished requests, or when its version is
no longer served. Then it is sealed when it has no unfinished request, or after 30 s, and it is deleted after its last
result is delivered. If the process dies, its callers lose their connections, and another process deletes its batches.

Read `live_request`, `groups`, `batch`, `requests`, `serving`; `sampling`, `extra_arguments`, `protocol_model`,
`refused_fields` and `refusals` check fields and render errors; `orphans` deletes the batches of dead processes. Tests:
tests/api/compat.
"""

"""What the compatible routes share: requests that arrive one by one become groups of live batches.

Read `live_request`, `groups`, `batch`, `requests`, `serving`; `sampling`, `refused_fields` and `refusals` say what is
accepted; `orphans` deletes what dead processes left. Tests: tests/api/compat.
"""

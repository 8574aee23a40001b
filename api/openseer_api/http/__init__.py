"""The parts that all routes share: authorization, limits of a call, and the rendering of errors and results.

Read `auth`, `gate` (runs before all routes), `session` (login of the page), `bodies`, `problems`, `rendering`,
`shutdown`, `call_counts`, `server`. Tests: tests/api/http.
"""

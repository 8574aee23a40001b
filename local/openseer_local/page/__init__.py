"""The page on this machine: of a run that goes on (`openseer run --page`) and of one that has ended (`openseer view`).

Read `ended_facts` (a run folder as journals and samples), `kept_results` (its lines), `ended_run` and `ended_group`
(its views), `ended_explained`, `serving`. Tests: tests/local/page.
"""

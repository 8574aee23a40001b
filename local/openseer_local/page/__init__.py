"""The page on this machine, of a running job (`openseer run --page`) or of an ended run (`openseer view`).

Read `ended_facts` (journal and samples of a run folder), `kept_results` (its results), `ended_run` and `ended_group`
(its views), `ended_explained`, `serving`. Tests: tests/local/page.
"""

"""Serves the live page on this machine, for a running job (`openseer run --page`) or an ended run (`openseer view`).

Read `ended_facts` (journal and samples of a run folder), `kept_results` (its results), `ended_run` and `ended_group`
(its views), `ended_explained`, `serving`. Tests: tests/local/page.
"""

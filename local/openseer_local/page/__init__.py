"""The page on this machine: of a run that goes on (`openseer run --page`) and of one that has ended (`openseer view`).

Read `ended_facts` (a run folder as journals and samples), `ended_run` (its views), `serving`. Tests: tests/local/page.
"""

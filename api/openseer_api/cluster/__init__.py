"""The gateway's view of a cluster: which jobs serve, who may use them, and their batch controllers.

Read `client`, `ttl_cache`, `auth`, `jobs`, `directory`, `controlled_job`, `rows_memory`, `rows`. Tests:
tests/api/cluster.
"""

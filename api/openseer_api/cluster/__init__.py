"""The gateway's access to a cluster: the jobs that serve, the rights of their callers, and their batch controllers.

Read `client`, `ttl_cache`, `auth`, `jobs`, `directory`, `controlled_job`, `rows_memory`, `rows`. Tests:
tests/api/cluster.
"""

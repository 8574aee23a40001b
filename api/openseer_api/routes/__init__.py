"""The routes of openseer's own API, one module per kind of resource.

Read `access`, `batches`, `groups`, `results`, `weights`, `fleet`. Tests: tests/api/routes.
"""

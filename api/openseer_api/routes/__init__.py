"""The routes of openseer's own API, a module per kind of resource.

Read `access`, `batches`, `groups`, `results`, `weights`, `fleet`. Tests: tests/api/routes.
"""

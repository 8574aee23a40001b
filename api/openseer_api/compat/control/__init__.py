"""Control routes of vLLM and SGLang: state, pausing, new weights.

Read `info`, `pausing`, `updating`, `weight_routes`, `adapter_routes`. Tests: tests/api/compat.
"""

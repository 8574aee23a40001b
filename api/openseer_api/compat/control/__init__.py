"""Control routes of vLLM and SGLang: state, pausing, lending of GPUs, new weights.

Read `info`, `pausing`, `lending`, `updating`, `weight_routes`, `transfer`, `weight_checks`, `adapter_routes`. Tests:
tests/api/compat.
"""

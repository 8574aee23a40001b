"""Loaded by vLLM into each process that computes on a CPU: asks the kernel for the use of the matrix unit (AMX).

On a CPU that has one, vLLM's attention uses it for bfloat16, and without this the first short prompt ends the process
with an illegal instruction: only large matrix products ask the kernel on their own.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportPrivateUsage=false

import torch

torch.cpu._init_amx()


class CpuWorkerExtension:
    """What vLLM mixes into its worker: nothing, the import is what counts."""

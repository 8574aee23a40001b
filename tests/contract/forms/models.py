"""Models, enumerations and errors that other programs rely on, by label. A renamed class changes one line here."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from openseer_api.compat.control import lending, pausing, weight_checks, weight_routes
from openseer_api.compat.openai import wire as openai_wire
from openseer_api.compat.sglang import wire as sglang_wire
from openseer_api.compat.vllm import generate as vllm_generate
from openseer_core import errors
from openseer_core.manifest import job
from openseer_core.plan import observation
from openseer_core.queue import states as life
from openseer_core.queue.messages import WriteOutcome
from openseer_core.weights import fleet_spec as orders
from openseer_core.weights import publish
from openseer_core.wire import batches as wire
from openseer_core.wire import fleet as wire_fleet
from openseer_core.wire import results as wire_results
from openseer_core.wire import weights as wire_weights
from openseer_core.wire.problem import Problem
from openseer_core.worker.heartbeat import WeightsReport

MODELS: dict[str, type[BaseModel]] = {
    # Trainer and API.
    "wire acknowledge": wire.Acknowledge,
    "wire batch": wire.Batch,
    "wire batch list": wire.BatchList,
    "wire batch metrics": wire.BatchMetrics,
    "wire batch spec": wire.BatchSpec,
    "wire cancel": wire.Cancel,
    "wire chunk": wire_results.ChunkInfo,
    "wire continue": wire.Continue,
    "wire count": wire.Count,
    "wire end item": wire_results.EndItem,
    "wire group": wire.Group,
    "wire group info": wire.GroupInfo,
    "wire group item": wire_results.GroupItem,
    "wire group names": wire.GroupNames,
    "wire groups upload": wire.GroupsUpload,
    "wire problem": Problem,
    "wire request info": wire.RequestInfo,
    "wire result item": wire_results.ResultItem,
    "wire result page": wire_results.ResultPage,
    "wire target": wire.Target,
    "wire upload receipt": wire.UploadReceipt,
    "wire verdicts": wire.Verdicts,
    "wire version span": wire_results.VersionSpan,
    # The fleet.
    "fleet autoscaling": wire_fleet.Autoscaling,
    "fleet canary": publish.Canary,
    "fleet deadlines": publish.Deadlines,
    "fleet job status": wire_fleet.JobStatus,
    "fleet publish": publish.Publish,
    "fleet release": wire_fleet.Release,
    "fleet source": publish.Source,
    "fleet state": wire_fleet.FleetState,
    "fleet transaction": wire_weights.Transaction,
    "fleet weights": wire_weights.Weights,
    "fleet worker": wire_fleet.WorkerInfo,
    "fleet worker list": wire_fleet.WorkerList,
    "fleet worker weights": wire_weights.WorkerWeights,
    # JSON in Redis.
    "stored orders": orders.FleetSpec,
    "stored transaction": orders.WeightsTransaction,
    "stored weights report": WeightsReport,
    # The manifest with its parts.
    "manifest": job.RolloutJob,
    "manifest sampling": job.Sampling,
    # Bodies of the compatible routes.
    "openai chat": openai_wire.ChatRequest,
    "openai completion": openai_wire.CompletionRequest,
    "sglang abort": sglang_wire.AbortRequest,
    "sglang generate": sglang_wire.SglangGenerateRequest,
    "sglang pause": pausing.PauseBody,
    "sglang memory": lending.MemoryBody,
    "sglang check": weight_checks.CheckWeights,
    "sglang weights from disk": weight_routes.FromDisk,
    "vllm abort": vllm_generate.AbortRequests,
    "vllm generate": vllm_generate.VllmGenerateRequest,
    "vllm update weights": weight_routes.UpdateWeights,
}

WORDS: dict[str, type[StrEnum]] = {
    "event of a request": life.Event,
    "finish reason": life.FinishReason,
    "outcome of a write": WriteOutcome,
    "outcome of a job": observation.JobOutcome,
    "state of a request": life.State,
    "status of a result": life.Status,
}
"""Enumerations whose values are stored, sent or printed."""

ERRORS: dict[str, type[errors.OpenseerError]] = {
    "any": errors.OpenseerError,
    "audit": errors.AuditError,
    "responses failed": errors.ResponsesFailedError,
    "batch closed": errors.BatchClosedError,
    "driver fenced": errors.DriverFencedError,
    "engine": errors.EngineError,
    "gpu sick": errors.GpuSickError,
    "input": errors.InputError,
    "job failed": errors.JobFailedError,
    "load": errors.LoadError,
    "manifest": errors.ManifestError,
    "model": errors.ModelError,
    "output": errors.OutputError,
    "problems": errors.ProblemsError,
    "prompts": errors.PromptsError,
    "publish refused": errors.PublishRefusedError,
    "request state": errors.RequestStateError,
    "store": errors.StoreError,
    "store unavailable": errors.StoreUnavailableError,
}


def words() -> dict[str, Any]:
    """The values of every enumeration, by label."""
    return {label: sorted(kind) for label, kind in WORDS.items()}

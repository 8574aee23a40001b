"""The managed Redis: protection from autoscalers, its move from a lost node, and its deletion.

Epochs separate the numbers of successive Redis servers (docs/decisions/0016). They do not prevent two servers from
writing to one log: that requires a volume that only one node mounts at a time. So Redis moves only if Kubernetes
guarantees this, or if its data are not needed.
"""

from openseer_core.manifest.store_url import manages_store
from openseer_core.plan.actions import Action, Announce, DeletePod, DeleteStore, InspectStore, ScaleStore, Stamp
from openseer_core.plan.observation import JobOutcome, Memory, Observation
from openseer_core.plan.workers import FORCE_SECONDS, PROTECTED_SECONDS, is_protected

STORE_POD_SECONDS = 5.0
"""Time without a pod, in seconds, after which each reconcile step inspects a Redis that should run."""
RISK_SECONDS = 30.0
"""Interval of checks whether a lost Redis may move, in seconds: an admin may have deleted its node or declared it out
of service."""


def is_lost(observation: Observation) -> bool:
    """Whether Redis is past its grace period and its node has not confirmed its end."""
    redis = observation.redis
    return redis is not None and redis.gone_by is not None and observation.now >= redis.gone_by + FORCE_SECONDS


def plan_store(observation: Observation, memory: Memory, *, runs: bool) -> tuple[list[Action], float | None]:
    """Actions on the managed Redis, and the time of the next plan (None for none). `runs`: whether the job runs."""
    if observation.redis is not None:
        actions, due = plan_redis(observation, memory)
    else:
        actions, due = _inspect(observation) if runs else ([], None)
    return actions if runs else [*actions, *_stop(observation, memory)], due


def plan_redis(observation: Observation, memory: Memory) -> tuple[list[Action], float | None]:
    """Actions on the pod of Redis, and the time of the next plan (None for none)."""
    redis = observation.redis
    if redis is None:
        return [], None
    if redis.gone_by is not None:
        if not is_lost(observation):
            return [], redis.gone_by + FORCE_SECONDS
        return _leave(observation, memory)
    if not redis.stamp or redis.started_at is None or _is_ephemeral(observation):
        return [], None
    if is_protected(redis, observation.now):
        return [], redis.started_at + PROTECTED_SECONDS
    return [Stamp(redis.name, redis.uid, busy=False)], None


def _inspect(observation: Observation) -> tuple[list[Action], float | None]:
    """Inspects a Redis that has had no pod for STORE_POD_SECONDS; before, returns the time at which that is due."""
    if observation.store_missing_since is None:
        return [], None
    due = observation.store_missing_since + STORE_POD_SECONDS
    return ([InspectStore()], None) if observation.now >= due else ([], due)


def _stop(observation: Observation, memory: Memory) -> list[Action]:
    """Stops Redis after all pods that could write to it have ended; deletes it if the job is complete."""
    if (
        not manages_store(observation.job)
        or observation.store_replicas is None
        or any(not pod.ended for pod in observation.pods)
    ):
        return []
    if memory.ending is not None and memory.ending.outcome is JobOutcome.COMPLETE:
        return [DeleteStore()]
    return [ScaleStore(0)] if observation.store_replicas else []


def keeps_lost_redis(observation: Observation, memory: Memory) -> bool:
    """Whether Redis is lost (`is_lost`) and must not move."""
    return is_lost(observation) and bool(observation.volume_risk) and not _is_needless(observation, memory)


def _is_needless(observation: Observation, memory: Memory) -> bool:
    """Whether the results contain all data of Redis, or the data are deleted with the job."""
    complete = memory.ending is not None and memory.ending.outcome is JobOutcome.COMPLETE
    return complete or observation.deleting_since is not None


def _leave(observation: Observation, memory: Memory) -> tuple[list[Action], float | None]:
    redis = observation.redis
    assert redis is not None
    over = _is_needless(observation, memory)
    if keeps_lost_redis(observation, memory):
        announced = (
            [] if observation.memory.redis_lost else [Announce(True, "StoreNodeLost", lost_message(observation))]
        )
        return [*announced], observation.now + RISK_SECONDS
    where = "the job does not need it" if over else "its volume follows when that node has released it"
    moved = Announce(True, "StoreMoved", f"node {redis.node} of {redis.name} does not answer; {where}")
    return [moved, DeletePod(redis.name, redis.uid, "its node does not answer", force=True)], None


def lost_message(observation: Observation) -> str:
    """The message why Redis cannot move, with the remedy."""
    redis = observation.redis
    assert redis is not None
    node = redis.node
    return (
        f"node {node} of {redis.name} does not answer, and Redis cannot move: {observation.volume_risk}. It continues "
        f"when the node is back. If the node is off for good: kubectl delete node {node}; if it is off and will be "
        f"back: kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, and remove the "
        "taint later. Never while it may still run"
    )


def _is_ephemeral(observation: Observation) -> bool:
    """Whether the data of Redis are on its node, so that a move would lose them."""
    persistence = observation.job.spec.store.persistence
    return persistence is not None and persistence.medium == "ephemeral"

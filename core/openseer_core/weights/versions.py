"""Which versions samples may come from: of the model's weights, and of adapters."""

from collections.abc import Sequence

from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction


def leaving(fleet_spec: FleetSpec, transaction: WeightsTransaction) -> tuple[str, ...]:
    """What a transaction replaces: one version of an adapter (none of a new name), or the weights and all adapters."""
    if transaction.publish.adapter is not None or fleet_spec.version != transaction.previous:
        return (transaction.previous,) if transaction.previous else ()
    return fleet_spec.served


def takes_groups(fleet_spec: FleetSpec, version: str) -> bool:
    """Whether work of this version may still be queued: in drain not once the fleet has left the version."""
    transaction = fleet_spec.active_transaction
    if transaction is None or version not in leaving(fleet_spec, transaction):
        return True
    left = {"drain": ("load", "commit"), "abort": ("quiesce", "load", "commit"), "keep": ("commit",)}
    return transaction.phase not in left[transaction.publish.mode]


def admits(fleet_spec: FleetSpec, version: str) -> bool:
    """Whether requests that come one by one are queued for it now. Not while it drains: it would never be empty."""
    transaction = fleet_spec.active_transaction
    drains = transaction is not None and transaction.publish.mode == "drain" and transaction.phase != "prefetch"
    if transaction is not None and drains and version in leaving(fleet_spec, transaction):
        return False
    return not fleet_spec.held and takes_groups(fleet_spec, version)


def successor(fleet_spec: FleetSpec, version: str) -> str | None:
    """What unfinished work of a version that was served goes on with: the weights, or its adapter, as they are now.

    None where there is nothing: the version was never served, or its adapter is gone.
    """
    if version in fleet_spec.versions:
        return fleet_spec.version
    return next((adapter.version for adapter in fleet_spec.adapters if version in adapter.versions), None)


def stale_versions(versions: Sequence[str], version: str, max_staleness: int | None) -> tuple[str, ...]:
    """Which published versions are more than `max_staleness` behind `version`; None: no limit."""
    if max_staleness is None or version not in versions:
        return ()
    return tuple(versions[: max(0, list(versions).index(version) - max_staleness)])


def stale_by(fleet_spec: FleetSpec, version: str) -> tuple[str, ...]:
    """Versions whose tokens the publish that brought a served version does not let go on, where it was the latest."""
    transaction = fleet_spec.transaction
    if transaction is None or transaction.publish.mode != "keep" or transaction.publish.version != version:
        return ()
    adapter = next((adapter for adapter in fleet_spec.adapters if adapter.version == version), None)
    versions = fleet_spec.versions if adapter is None else adapter.versions
    return stale_versions(versions, version, transaction.publish.max_staleness)

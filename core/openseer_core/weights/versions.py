"""The versions that samples may come from: of the model's weights and of adapters."""

from collections.abc import Sequence

from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction


def leaving(fleet_spec: FleetSpec, transaction: WeightsTransaction) -> tuple[str, ...]:
    """The versions that a transaction replaces: one of an adapter (none for a new name), or all served ones."""
    if transaction.publish.adapter is not None or fleet_spec.version != transaction.previous:
        return (transaction.previous,) if transaction.previous else ()
    return fleet_spec.served


def takes_groups(fleet_spec: FleetSpec, version: str) -> bool:
    """Whether requests of this version may still be queued; in drain only until the fleet has left the version."""
    transaction = fleet_spec.active_transaction
    if transaction is None or version not in leaving(fleet_spec, transaction):
        return True
    left = {"drain": ("load", "commit"), "abort": ("quiesce", "load", "commit"), "keep": ("commit",)}
    return transaction.phase not in left[transaction.publish.mode]


def admits(fleet_spec: FleetSpec, version: str) -> bool:
    """Whether live requests are queued for it now. Not while it drains: new ones would keep it from becoming empty."""
    transaction = fleet_spec.active_transaction
    drains = transaction is not None and transaction.publish.mode == "drain" and transaction.phase != "prefetch"
    if transaction is not None and drains and version in leaving(fleet_spec, transaction):
        return False
    return not fleet_spec.held and takes_groups(fleet_spec, version)


def successor(fleet_spec: FleetSpec, version: str) -> str | None:
    """The version that continues unfinished requests of an earlier one: the present weights, or its present adapter.

    None if there is none: the version was never served, or its adapter was removed.
    """
    if version in fleet_spec.versions:
        return fleet_spec.version
    return next((adapter.version for adapter in fleet_spec.adapters if version in adapter.versions), None)


def stale_versions(versions: Sequence[str], version: str, max_staleness: int | None) -> tuple[str, ...]:
    """The published versions that are more than `max_staleness` behind `version`; None: no limit."""
    if max_staleness is None or version not in versions:
        return ()
    return tuple(versions[: max(0, list(versions).index(version) - max_staleness)])


def stale_by(fleet_spec: FleetSpec, version: str) -> tuple[str, ...]:
    """Versions whose tokens are too stale for `version`, by the latest publish if that published it in mode keep."""
    transaction = fleet_spec.transaction
    if transaction is None or transaction.publish.mode != "keep" or transaction.publish.version != version:
        return ()
    adapter = next((adapter for adapter in fleet_spec.adapters if adapter.version == version), None)
    versions = fleet_spec.versions if adapter is None else adapter.versions
    return stale_versions(versions, version, transaction.publish.max_staleness)

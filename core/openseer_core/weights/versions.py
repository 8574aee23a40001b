"""Rules about versions of weights and adapters: which accept groups, which replace others, which are too stale."""

from collections.abc import Sequence

from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction


def leaving(fleet_spec: FleetSpec, transaction: WeightsTransaction) -> tuple[str, ...]:
    """The versions that a transaction replaces: for weights all served versions (after the commit only the previous
    weights), for an adapter its previous version, if it has one."""
    if transaction.publish.adapter is not None or fleet_spec.version != transaction.previous:
        return (transaction.previous,) if transaction.previous else ()
    return fleet_spec.served


def takes_groups(fleet_spec: FleetSpec, version: str) -> bool:
    """Whether new groups of this version are accepted. A publish that replaces it ends that at the start of phase load
    in mode drain, quiesce in mode abort, and commit in mode keep."""
    transaction = fleet_spec.active_transaction
    if transaction is None or version not in leaving(fleet_spec, transaction):
        return True
    left = {"drain": ("load", "commit"), "abort": ("quiesce", "load", "commit"), "keep": ("commit",)}
    return transaction.phase not in left[transaction.publish.mode]


def admits(fleet_spec: FleetSpec, version: str) -> bool:
    """Whether new live requests of this version are queued now. They are not while it drains, because then it would
    never become empty, nor while the compatible routes are held."""
    transaction = fleet_spec.active_transaction
    drains = transaction is not None and transaction.publish.mode == "drain" and transaction.phase != "prefetch"
    if transaction is not None and drains and version in leaving(fleet_spec, transaction):
        return False
    return not fleet_spec.held and takes_groups(fleet_spec, version)


def successor(fleet_spec: FleetSpec, version: str) -> str | None:
    """The version that continues unfinished requests of an earlier version: the present weights, or for a version of an
    adapter the adapter's present version.

    None if the version was never served, or its adapter was removed.
    """
    if version in fleet_spec.versions:
        return fleet_spec.version
    return next((adapter.version for adapter in fleet_spec.adapters if version in adapter.versions), None)


def stale_versions(versions: Sequence[str], version: str, max_staleness: int | None) -> tuple[str, ...]:
    """The versions that are more than `max_staleness` places before `version` in `versions`; None: no limit."""
    if max_staleness is None or version not in versions:
        return ()
    return tuple(versions[: max(0, list(versions).index(version) - max_staleness)])


def stale_by(fleet_spec: FleetSpec, version: str) -> tuple[str, ...]:
    """The versions whose tokens are too stale for `version`, by the latest publish; none unless that published
    `version` in mode keep."""
    transaction = fleet_spec.transaction
    if transaction is None or transaction.publish.mode != "keep" or transaction.publish.version != version:
        return ()
    adapter = next((adapter for adapter in fleet_spec.adapters if adapter.version == version), None)
    versions = fleet_spec.versions if adapter is None else adapter.versions
    return stale_versions(versions, version, transaction.publish.max_staleness)

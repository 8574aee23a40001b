"""A fleet that serves adapters beside its weights: the versions that sample before, during and after a publish."""

from pathlib import Path
from typing import Any

from openseer_core.manifest.generation import Lora
from openseer_core.weights.publish import AdapterSpec, Publish, Source
from openseer_core.weights.transaction import begin, participants
from tests.worker.fleet import Fleet, play
from tests.worker.weights.adapters import write_adapter

LORA = Lora(max_rank=4, max_adapters=2)


async def adapt(fleet: Fleet, version: str, name: str, **more: Any) -> None:
    """Starts to publish an adapter."""
    folder = write_adapter(fleet.folder / version, version)
    values: dict[str, Any] = {"source": Source(path=str(folder)), "retries": 0} | more
    publish = Publish(version=version, adapter=AdapterSpec(name=name), **values)
    fleet_spec = await fleet.store.fleet_spec()
    names = participants(await fleet.store.workers(), fleet.now())
    assert await fleet.store.swap_fleet_spec(begin(fleet_spec, publish, names, fleet.now(), LORA))


def story(tmp_path: Path, told: Any) -> None:
    play(tmp_path, told, lora={"maxRank": LORA.max_rank, "maxAdapters": LORA.max_adapters})


def test_an_adapter_is_loaded_during_work_and_samples_only_its_batch(tmp_path: Path) -> None:
    async def told(fleet: Fleet) -> None:
        loads = {name: engine.loaded for name, engine in fleet.engines.items()}
        await adapt(fleet, "a1", "a")
        await fleet.until("done")
        spec = await fleet.store.fleet_spec()
        assert spec.served == ("initial", "a1")
        assert spec.adapters[0].source.digest
        await fleet.submit(1, "a1")
        await fleet.submit(2, "initial")
        for batch, version in ((0, "initial"), (1, "a1"), (2, "initial")):
            results = await fleet.results(batch)
            assert {chunk.version for result in results for chunk in result.chunks} == {version}
        assert loads == {name: engine.loaded for name, engine in fleet.engines.items()}
        assert not fleet.actions

    story(tmp_path, told)


def test_keep_continues_requests_of_a_replaced_adapter_on_the_next(tmp_path: Path) -> None:
    async def told(fleet: Fleet) -> None:
        await adapt(fleet, "a1", "a")
        await fleet.until("done")
        assert {chunk.version for result in await fleet.results(0) for chunk in result.chunks} == {"initial"}
        await fleet.submit(1, "a1")
        await fleet.sleep(1.0)
        await adapt(fleet, "a2", "a", mode="keep")
        await fleet.until("done")
        results = await fleet.results(1)
        assert {chunk.version for result in results for chunk in result.chunks} == {"a1", "a2"}
        assert all(engine.held == ["a2"] for engine in fleet.engines.values())

    story(tmp_path, told)


def test_a_later_worker_loads_the_adapters_of_the_fleet(tmp_path: Path) -> None:
    async def told(fleet: Fleet) -> None:
        await adapt(fleet, "a1", "a")
        await fleet.until("done")
        name = fleet.start(2)
        await fleet.sleep(2.0)
        assert fleet.engines[name].held == ["a1"]

    story(tmp_path, told)


def test_an_adapter_refused_by_a_worker_is_not_served(tmp_path: Path) -> None:
    async def told(fleet: Fleet) -> None:
        write_adapter(fleet.folder / "big", rank=8)
        await adapt(fleet, "a1", "a", source=Source(path=str(fleet.folder / "big")))
        failed = await fleet.until("failed")
        assert "found rank 8, allowed: at most 4" in failed.message
        assert (await fleet.store.fleet_spec()).served == ("initial",)
        await fleet.results(0)

    story(tmp_path, told)


def test_new_weights_remove_the_adapters(tmp_path: Path) -> None:
    async def told(fleet: Fleet) -> None:
        await adapt(fleet, "a1", "a")
        await fleet.until("done")
        await fleet.publish("v1", mode="keep")
        await fleet.until("done")
        await fleet.sleep(1.0)
        assert (await fleet.store.fleet_spec()).served == ("v1",)
        assert all(engine.held == [] for engine in fleet.engines.values())
        await fleet.results(0)

    story(tmp_path, told)


def test_a_removed_adapter_samples_no_more_tokens(tmp_path: Path) -> None:
    async def told(fleet: Fleet) -> None:
        await adapt(fleet, "a1", "a")
        await fleet.until("done")
        await fleet.submit(1, "a1")
        await fleet.sleep(0.5)
        spec = await fleet.store.fleet_spec()
        assert await fleet.store.swap_fleet_spec(spec.without("a"))
        await fleet.sleep(3.0)
        progress = await fleet.store.progress(1)
        assert progress.closed == 0  # the requests wait: no other weights sample them
        assert all(engine.held == [] for engine in fleet.engines.values())
        await fleet.results(0)

    story(tmp_path, told)

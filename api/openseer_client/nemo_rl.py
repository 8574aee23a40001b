"""An adapter for NeMo-RL's GRPO: a generation class that replaces its vLLM backend, and weights through a folder.

Written for NeMo-RL at revision 7ea279a (0.6.0, 2026-08-22). Its function `grpo.setup` can only select NeMo-RL's own
backends, so `install` replaces the vLLM class of that module. Call it before `setup` is called or imported:

    from openseer_client.nemo_rl import Fleet, install

    install(Fleet("/weights", run="math"))
    import run_grpo  # examples/run_grpo.py of NeMo-RL

    run_grpo.main()
"""

# NeMo-RL and Ray are no dependencies of openseer, and torch's types are partial: their values are Any here.
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch
from nemo_rl.distributed.batched_data_dict import BatchedDataDict
from nemo_rl.models.generation.interfaces import GenerationInterface, verify_right_padding
from nemo_rl.weight_sync.interfaces import WeightSynchronizer

from openseer_client.client import Client
from openseer_client.torch_weights import WeightsFolder, source_of
from openseer_client.whole_groups import forget_leftovers, sample_whole
from openseer_core.errors import InputError
from openseer_core.manifest.generation import Sampling
from openseer_core.weights.fleet_spec import MemoryPart
from openseer_core.weights.publish import Publish, PublishMode, Source
from openseer_core.wire.batches import MAX_GROUP_SIZE, BatchSpec, Group
from openseer_core.wire.fleet import Acquire, Release
from openseer_core.wire.results import ResultItem

TIMED = "prepare_for_generation/transfer_and_update_weights"
"""The timer under which NeMo-RL reports the time of its own weight transports."""
_TAKEN = {"input_ids", "input_lengths", "stop_strings"}


@dataclass(frozen=True)
class Fleet:
    """The fleet's address, and the settings of a training that uses it.

    `weights_folder`: a folder that every process of the trainer and every worker can access. `url`, `token`,
    `token_file`: from the environment if unset. `run`: prefix of the versions' names; a restarted training deletes the
    batches of its previous process, so concurrent trainings need different names. `mode`: treatment of other responses
    that run during a publish. `share_gpus`: the workers use the trainer's GPUs, and sleep while it trains.
    """

    weights_folder: str
    url: str | None = None
    token: str | None = None
    token_file: str | None = None
    run: str = "nemo-rl"
    mode: PublishMode = "abort"
    share_gpus: bool = False

    def __post_init__(self) -> None:
        # Raises an error now for settings that a publish would refuse.
        self.publish(f"{self.run}-0", Source(path=self.weights_folder))

    def publish(self, version: str, source: Source) -> Publish:
        """Returns the body of a publish by this training."""
        return Publish(version=version, source=source, mode=self.mode)

    def client(self) -> Client:
        """Returns a client of the fleet's API."""
        return Client(self.url, token=self.token, token_file=self.token_file)


def install(fleet: Fleet) -> None:
    """Makes `nemo_rl.algorithms.grpo.setup` use the fleet. Raises InputError without an address; `setup` then raises
    InputError for settings that the fleet does not support."""
    fleet.client().close()  # checks the address
    grpo: Any = import_module("nemo_rl.algorithms.grpo")
    stock = grpo.setup

    @wraps(stock)
    def setup(master_config: Any, *arguments: Any, **more: Any) -> Any:
        check(master_config.policy)
        made = stock(master_config, *arguments, **more)
        policy, generation = made[:2]
        generation.weight_synchronizer = FolderSync(fleet, policy, generation)
        return made

    grpo.VllmGeneration = partial(Generation, fleet)
    grpo.setup = setup


_NEEDED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("generation.backend", ("vllm",), "the fleet replaces that backend"),
    ("generation.colocated.enabled", (True,), "no GPU of NeMo-RL generates; async_grpo is not supported"),
    ("generation.vllm_cfg.async_engine", (False, None), "whole batches are sampled; NeMo-Gym is not supported"),
    ("generation.refit_transport", (None,), "weights go through a folder"),
    ("generation.bad_words", (None, []), "a response could not continue on another worker with them"),
    ("dtensor_cfg.enabled", (True,), "Megatron saves no safetensors that an engine can read"),
    ("dtensor_cfg._v2", (True,), "version 1 saves no safetensors that an engine can read"),
    ("dtensor_cfg.lora_cfg.enabled", (False, None), "the whole weights are published"),
    ("router_replay.enabled", (False, None), "the routed experts of tokens are not recorded"),
)
"""Fields of `policy`, with their allowed values and the reason."""


def check(policy: Mapping[str, Any]) -> None:
    """Raises InputError for a setting of a configuration's `policy` that the fleet does not support."""
    for path, needed, why in _NEEDED:
        found: Any = policy
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if found not in needed:
            raise InputError(f"policy.{path}: found {found}, needed: {needed[0]}; {why}")


class Generation(GenerationInterface):
    """A generation backend that uses the fleet instead of NeMo-RL's vLLM engines.

    It reads the sampling in `config` (policy.generation), and max_model_len and logprobs_mode in its vllm_cfg. The
    job's manifest has all other settings of the engines. A pickled copy has no weight synchronizer.
    """

    def __init__(
        self, fleet: Fleet, cluster: Any, config: Mapping[str, Any], *, defer_model_load: bool = False
    ) -> None:
        if defer_model_load:
            raise InputError("NeMo-Gym: not supported; it calls servers of NeMo-RL's own engines, and there are none")
        self.fleet = fleet
        self.cfg = config
        self.weight_synchronizer: Any = None
        self.version = ""

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not updated when a version is published, so it reads the version from the API.
        return self.__dict__ | {"weight_synchronizer": None, "version": ""}

    def generate(self, data: Any, greedy: bool = False) -> Any:
        """Samples one response per row and returns all. Rows with the same prompt and stop strings form one group.

        `data`: input_ids (int64, [rows, padded length], padded on the right), input_lengths (int64, [rows]),
        stop_strings (for each row a list, a string or None; unset: none). `greedy`: always the likeliest token. Returns
        output_ids (int64, [rows, padded length], prompt and response, padded on the right), logprobs (float32, of the
        same shape, 0 except at sampled tokens), generation_lengths, unpadded_sequence_lengths (int64, [rows]) and
        truncated (bool, [rows]: the response did not end by a stop). Raises InputError for rows that cannot be sampled,
        GroupsLostError for responses that were lost twice, and StaleResultError for tokens of other weights than those
        published last.
        """
        if extra := sorted(set(data) - _TAKEN):
            raise InputError(f"{', '.join(extra)}: openseer takes token ids only")
        rows = self._rows(data)
        groups: list[Group] = []
        places: dict[str, list[int]] = {}
        for (prompt, stop), alike in _places(rows).items():
            sampling = self._sampling(len(prompt), stop, greedy)
            for start in range(0, len(alike), MAX_GROUP_SIZE):
                name, some = f"p{len(groups)}", alike[start : start + MAX_GROUP_SIZE]
                groups.append(Group(id=name, prompt_token_ids=list(prompt), n=len(some), sampling=sampling))
                places[name] = some
        with self.fleet.client() as client:
            version = self.version or client.weights().version
            found = sample_whole(client, BatchSpec(weights_version=version, metadata={"run": self.fleet.run}), groups)
        items = {
            place: item for name, some in places.items() for place, item in zip(some, found[name].results, strict=True)
        }
        return _output(data["input_ids"], [items[place] for place in range(len(rows))], self.cfg["_pad_token_id"])

    def _rows(self, data: Any) -> "list[_Row]":
        """Returns the prompt of each row, without padding, and its stop strings."""
        ids, lengths = data["input_ids"], data["input_lengths"].tolist()
        if not lengths:
            return []
        verify_right_padding(data, pad_value=self.cfg["_pad_token_id"])
        stops: Sequence[Any] = data.get("stop_strings") or [None] * len(lengths)
        if len(stops) != len(lengths):
            raise InputError(f"stop_strings: found {len(stops)}, needed: one entry for each of {len(lengths)} rows")
        always = self.cfg.get("stop_strings") or ()
        rows: list[_Row] = []
        for row, length, own in zip(ids.tolist(), lengths, stops, strict=True):
            own_stops = [own] if isinstance(own, str) else own or ()
            rows.append((tuple(row[:length]), tuple(dict.fromkeys((*always, *own_stops)))))
        return rows

    def _sampling(self, prompt_tokens: int, stop: tuple[str, ...], greedy: bool) -> Sampling:
        """Returns the configuration's sampling, with max_tokens limited by max_model_len. Raises InputError for a
        prompt that leaves no room for a token."""
        cfg = self.cfg
        engine: Mapping[str, Any] = cfg.get("vllm_cfg") or {}
        room = engine["max_model_len"] - prompt_tokens
        if room < 1:
            raise InputError(
                f"input_lengths: found {prompt_tokens}, needed: less than policy.generation.vllm_cfg.max_model_len "
                f"({engine['max_model_len']})"
            )
        return Sampling(
            temperature=0.0 if greedy else cfg["temperature"],
            top_p=1.0 if greedy else cfg["top_p"],
            top_k=0 if greedy else cfg["top_k"] or 0,
            max_tokens=min(cfg["max_new_tokens"], room),
            stop=stop,
            stop_token_ids=tuple(cfg["stop_token_ids"] or ()),
            ignore_eos=bool(cfg.get("ignore_eos")),
            logprobs="raw" if engine.get("logprobs_mode") == "raw_logprobs" else "sampled",
        )

    def prepare_for_generation(self, *args: Any, **kwargs: Any) -> bool:
        """Wakes the fleet's engines, or the parts in `tags`; does nothing without `share_gpus`."""
        if self.fleet.share_gpus:
            parts: list[MemoryPart] | None = kwargs.get("tags")
            with self.fleet.client() as client:
                client.acquire(Acquire(parts=parts))
        return True

    def finish_generation(self, *args: Any, **kwargs: Any) -> bool:
        """Makes the engines release the GPUs; does nothing without `share_gpus`, or if `release_gpu` is False."""
        if self.fleet.share_gpus and kwargs.get("release_gpu", True):
            with self.fleet.client() as client:
                client.release(Release(keep_weights=False))
        return True

    def invalidate_kv_cache(self) -> bool:
        """Returns True and does nothing: cached KV blocks of other versions are never used."""
        return True

    def shutdown(self) -> bool:
        """Does nothing: the fleet continues to run."""
        return True

    def prepare_refit_info(self, state_dict_info: Any) -> None:
        """Does nothing: the weights' files contain names and shapes."""

    def init_collective(self, ip: str, port: int, world_size: int, *, train_world_size: int) -> NoReturn:
        """Raises InputError: no process of the fleet joins the trainer's process group."""
        _no_transport("init_collective")

    def update_weights_via_ipc_zmq(self) -> NoReturn:
        """Raises InputError: weights reach the fleet only through a folder."""
        _no_transport("update_weights_via_ipc_zmq")

    def update_weights_from_collective(self) -> NoReturn:
        """Raises InputError: weights reach the fleet only through a folder."""
        _no_transport("update_weights_from_collective")


_Row = tuple[tuple[int, ...], tuple[str, ...]]


def _places(rows: Sequence[_Row]) -> dict[_Row, list[int]]:
    """Returns the indices of equal rows, by row."""
    found: dict[_Row, list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(row, []).append(place)
    return found


def _output(input_ids: Any, items: Sequence[ResultItem], pad: int) -> Any:
    """Returns the output of `generate`, on the CPU. `pad`: id of the padding token."""
    ends = [len(item.prompt_token_ids) + len(item.token_ids) for item in items]
    width = max([input_ids.shape[-1] if items else 0, *ends])
    output_ids = torch.full((len(items), width), pad, dtype=input_ids.dtype)
    logprobs = torch.zeros((len(items), width), dtype=torch.float32)
    for place, (item, end) in enumerate(zip(items, ends, strict=True)):
        output_ids[place, :end] = torch.tensor([*item.prompt_token_ids, *item.token_ids], dtype=input_ids.dtype)
        logprobs[place, len(item.prompt_token_ids) : end] = torch.tensor(item.scores(), dtype=torch.float32)
    return BatchedDataDict(
        {
            "output_ids": output_ids,
            "logprobs": logprobs,
            "generation_lengths": torch.tensor([len(item.token_ids) for item in items], dtype=torch.long),
            "unpadded_sequence_lengths": torch.tensor(ends, dtype=torch.long),
            "truncated": torch.tensor([item.finish_reason != "stop" for item in items], dtype=torch.bool),
        }
    )


def _no_transport(call: str) -> NoReturn:
    raise InputError(
        f"{call}: weights reach the fleet through a folder, by `weight_synchronizer`, which "
        "openseer_client.nemo_rl.install sets in nemo_rl.algorithms.grpo.setup; call that one, with "
        "policy.generation.colocated.enabled: true"
    )


class FolderSync(WeightSynchronizer):
    """A weight synchronizer that saves the policy's weights as safetensors and publishes the folder."""

    def __init__(self, fleet: Fleet, policy: Any, generation: Generation) -> None:
        self._fleet, self._policy, self._generation = fleet, policy, generation
        self._folder = WeightsFolder(fleet.weights_folder)
        # The weights of a version never change, so a restarted training must use other version names.
        self._life = uuid.uuid4().hex[:8]
        self._count = 0

    def sync_weights(self, *, timer: Any = None, kv_scales: Any = None) -> None:
        """Publishes one version and returns when the fleet has loaded it. With `share_gpus` the policy is offloaded
        before the engines load weights, and afterwards the engines are awake.

        Raises WeightsError, with the workers that have not confirmed; the fleet then serves the previous version.
        """
        if kv_scales is not None:
            raise InputError("kv_scales: a published version has none; set vllm_cfg.kv_cache_dtype: auto")
        self._count += 1
        version = f"{self._fleet.run}-{self._life}-{self._count}"
        with timer.time(TIMED) if timer is not None else nullcontext(), self._fleet.client() as client:
            path = self._folder.save(_Saving(self._policy), version)
            forget_leftovers(client, self._fleet.run)
            if self._fleet.share_gpus:
                self._policy.offload_after_refit()
                client.acquire(Acquire(parts=["weights"]))
            client.publish(self._fleet.publish(version, source_of(path)))
            self._folder.note_published(version)
            if self._fleet.share_gpus:
                client.acquire()
        self._generation.version = version

    @property
    def is_stale(self) -> bool:
        """Whether no version has been published yet."""
        return not self._generation.version

    def init_communicator(self) -> None:
        """Does nothing: there is no communicator."""

    def shutdown(self) -> None:
        """Does nothing: no resources are held."""


class _Saving:
    """Saves a policy of NeMo-RL's DTensor workers (v2). They write consolidated safetensors in addition to their own
    shards, which are deleted here."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def save_pretrained(self, save_directory: str, **more: Any) -> None:
        folder = Path(save_directory)
        checkpoint = folder / "weights"
        how = {"model_save_format": "safetensors", "save_consolidated": True, "is_async": False}
        self._policy.save_checkpoint(weights_path=str(checkpoint), checkpointing_cfg=how)
        files = list((checkpoint / "model/consolidated").glob("model*"))
        if not any(file.suffix == ".safetensors" for file in files):
            raise InputError(
                f"weights: the policy has saved no safetensors in {checkpoint}/model/consolidated; needed: DTensor "
                "workers (policy.dtensor_cfg.enabled and _v2), and a folder that all of them see"
            )
        for file in files:
            file.rename(folder / file.name)
        shutil.rmtree(checkpoint)

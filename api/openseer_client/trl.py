"""TRL's trainers with openseer: GRPOTrainer's rollout function, and how AsyncGRPOTrainer's weights reach the fleet."""

# TRL and torch carry few types: what comes from them is Any here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice
from typing import Any

from accelerate.utils import broadcast_object_list

from openseer_client.client import Client
from openseer_client.ranks import for_all
from openseer_client.reading import Environment
from openseer_client.torch_weights import WeightsFolder, adapter_of, canary, source_of
from openseer_client.whole_groups import forget_leftovers, sample_whole
from openseer_core.errors import InputError
from openseer_core.manifest.generation import Sampling
from openseer_core.weights.publish import Canary, Publish, PublishMode
from openseer_core.wire.batches import BatchSpec, Group
from openseer_core.wire.weights import Transaction


class Rollout:
    """Give an instance as `rollout_func` to TRL's GRPOTrainer (written for TRL 1.16).

    Whenever the optimizer has stepped, the model goes to the shared folder and is published as `RUN-LIFE-STEP`; then
    each prompt and its repetitions are one group. Every process of a distributed training samples its own prompts; the
    first one publishes. `run`: names the training; given, a restarted trainer removes what its last life left behind.
    `adapter`: the name of a PEFT model's LoRA adapter, which is published alone, beside the weights that it works on.
    `environment`: answers turns, for multi-turn training; its tokens are masked. The trainer's own use of vLLM has to
    be off.
    """

    def __init__(
        self,
        client: Client,
        folder: WeightsFolder,
        *,
        run: str | None = None,
        mode: PublishMode = "drain",
        environment: Environment | None = None,
        progress: Callable[[Transaction], None] | None = None,
        adapter: str | None = None,
    ) -> None:
        self.client = client
        self.folder = folder
        # A version's weights never change, so a restarted trainer that steps again gives its versions other names.
        self._life = uuid.uuid4().hex[:8]
        self.run = run or "trl"
        self._leftovers = run is not None
        self.version = ""
        self._mode: PublishMode = mode
        self._environment = environment
        self._progress = progress
        self._adapter = adapter
        self._step = -1

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """What TRL asks for: token ids of prompts and completions, and sampling-time log-probabilities."""
        if trainer.use_vllm:
            raise InputError("GRPOConfig.use_vllm: found True, needed: False; openseer's workers generate")
        self._follow(trainer)
        # TRL repeats a prompt once for each of its completions.
        size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        groups = _groups(prompts, size, lambda prompt: _token_ids(prompt, trainer))
        purpose = "train" if trainer.model.training else "eval"
        sampling = sampling_of(trainer.args)
        spec = BatchSpec(weights_version=self.version, purpose=purpose, sampling=sampling, metadata={"run": self.run})
        found = sample_whole(self.client, spec, groups, self._environment)
        items = [item for group in groups for item in found[group.id].results]
        answer: dict[str, Any] = {
            "prompt_ids": [item.prompt_token_ids for item in items],
            "completion_ids": [item.token_ids for item in items],
            "logprobs": [item.scores() for item in items],
        }
        if self._environment is not None:
            answer["env_mask"] = [[int(drawn) for drawn in item.mask()] for item in items]
        return answer

    def _follow(self, trainer: Any) -> None:
        """Publishes the trainer's weights if its optimizer has stepped; every process comes here."""
        step = int(trainer.state.global_step)
        if step == self._step:
            return
        accelerator = trainer.accelerator
        # Both gather what is spread over processes, so all take part.
        proof = canary(trainer.model)
        state = accelerator.get_state_dict(trainer.model)
        outcome: list[Any] = [None, None]
        if accelerator.is_main_process:
            version = f"{self.run}-{self._life}-{step}"
            outcome = self._publish(accelerator.unwrap_model(trainer.model), version, proof, state)
        broadcast_object_list(outcome)
        version, error = outcome
        if error is not None:
            raise error
        self.version, self._step = version, step

    def _publish(self, model: Any, version: str, proof: Canary, state: Any) -> list[Any]:
        """The version, or the error for all processes: one that failed alone would leave the others waiting."""
        try:
            adapter = adapter_of(model, self._adapter)
            if self._leftovers:
                forget_leftovers(self.client, self.run)
            self._leftovers = False
            source = source_of(self.folder.save(model, version, state=state))
            what = Publish(version=version, source=source, mode=self._mode, canary=proof, adapter=adapter)
            self.client.publish(what, progress=self._progress)
            self.folder.note_published(version)
        except Exception as error:  # noqa: BLE001 - whatever it is
            return [None, for_all(error)]
        return [version, None]


class FolderTransfer:
    """Give an instance as `weight_transfer` to TRL's AsyncGRPOTrainer (written for TRL 1.16), whose rollout worker asks
    the job's vLLM routes: `vllm_server_base_url="http://any:TOKEN@HOST:PORT"`.

    Its own transfer needs NCCL, and one receiver; here a step's weights go to the shared folder and are published as
    `RUN-LIFE-NUMBER`. What runs goes on with them (mode keep), as TRL has it; `max_staleness`: as in Publish.
    """

    def __init__(
        self,
        client: Client,
        folder: WeightsFolder,
        *,
        run: str = "trl-async",
        max_staleness: int | None = None,
        progress: Callable[[Transaction], None] | None = None,
    ) -> None:
        self.client = client
        self.folder = folder
        self.run = run
        self.version = ""
        self._life = uuid.uuid4().hex[:8]
        self._sent = 0
        self._max_staleness = max_staleness
        self._progress = progress

    def init_weight_transfer(self) -> None:
        """Once, before the first weights: raises where the job cannot be reached."""
        self.client.job()

    def pause(self) -> None:
        """Nothing: a publish holds what runs for as long as it takes."""

    def send_weights(self, iterator: Iterable[tuple[str, Any]]) -> None:
        """Takes the named tensors as they come, and returns once every worker has them."""
        version = f"{self.run}-{self._life}-{self._sent}"
        self._sent += 1  # also where it fails: whether the fleet has it may not be known
        with self.folder.writing(version) as shards:
            for name, tensor in iterator:
                shards.add(name, tensor)
        source = source_of(self.folder.path / version)
        what = Publish(version=version, source=source, mode="keep", max_staleness=self._max_staleness)
        self.client.publish(what, progress=self._progress)
        self.folder.note_published(version)
        self.version = version

    def resume(self) -> None:
        """Nothing, as pause."""

    def destroy(self) -> None:
        """Nothing is held."""


def sampling_of(args: Any) -> Sampling:
    """The sampling of a GRPOConfig. Raises InputError for what openseer's workers cannot do."""
    if getattr(args, "repetition_penalty", 1.0) != 1.0:
        raise InputError(
            "GRPOConfig.repetition_penalty: openseer cannot continue it on another worker; leave it at 1.0"
        )
    if getattr(args, "generation_kwargs", None):
        raise InputError("GRPOConfig.generation_kwargs: not passed on; set the fields of GRPOConfig")
    return Sampling(
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=max(0, args.top_k or 0),
        min_p=args.min_p or 0.0,
        max_tokens=args.max_completion_length,
    )


def _groups(prompts: Sequence[Any], size: int, token_ids: Callable[[Any], list[int]]) -> list[Group]:
    """Runs of equal prompts as groups of at most `size`, in order; a process may hold a part of a group."""
    groups: list[Group] = []
    for prompt, run in groupby(prompts):
        ids = token_ids(prompt)
        while count := len(list(islice(run, size))):
            groups.append(Group(id=f"p{len(groups)}", prompt_token_ids=ids, n=count))
    return groups


def _token_ids(prompt: Any, trainer: Any) -> list[int]:
    """The prompt's ids as the trainer itself would make them."""
    tokenizer = trainer.processing_class
    if isinstance(prompt, str):
        return list(tokenizer(text=[prompt])["input_ids"][0])
    rendered = tokenizer.apply_chat_template(
        conversation=[prompt],
        tools=trainer.tools or None,
        chat_template=trainer.chat_template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **trainer.chat_template_kwargs,
    )
    return list(rendered["input_ids"][0])

"""Adapters for TRL: a rollout function for GRPOTrainer, and a weight transfer for AsyncGRPOTrainer."""

# The types of TRL and torch are partial: their values are Any here.
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
    """The `rollout_func` of TRL's GRPOTrainer (written for TRL 1.16).

    If the optimizer has stepped since the last rollout, it saves the model in the shared folder and publishes it as
    `RUN-LIFE-STEP` (LIFE: random, per process). Then it samples; each prompt with its repetitions is one group. In a
    distributed training every process samples its own prompts, and the first process publishes. `run`: name of the
    training; if given, a restarted trainer deletes the batches of its previous process. `adapter`: the name of a PEFT
    model's LoRA adapter; only the adapter is published, for its base weights. `environment`: returns the tokens to
    append after a turn, for multi-turn training; these tokens are masked. GRPOConfig.use_vllm must be False.
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
        # The weights of a version never change, so a restarted trainer must use other version names.
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
        """Samples the prompts; returns the token ids of prompts and completions, the completions' log-probabilities
        and, with an environment, their masks (1: sampled)."""
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
        """Publishes the trainer's weights if its optimizer has stepped. Every process must call it."""
        step = int(trainer.state.global_step)
        if step == self._step:
            return
        accelerator = trainer.accelerator
        # Both calls gather parameters from all processes, so all processes must make them.
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
        """Publishes the weights; returns [version, None] or [None, error], which is broadcast: if only this process
        raised the error, the others would wait for ever."""
        try:
            adapter = adapter_of(model, self._adapter)
            if self._leftovers:
                forget_leftovers(self.client, self.run)
            self._leftovers = False
            source = source_of(self.folder.save(model, version, state=state))
            what = Publish(version=version, source=source, mode=self._mode, canary=proof, adapter=adapter)
            self.client.publish(what, progress=self._progress)
            self.folder.note_published(version)
        except Exception as error:  # noqa: BLE001 - any error
            return [None, for_all(error)]
        return [version, None]


class FolderTransfer:
    """The `weight_transfer` of TRL's AsyncGRPOTrainer (written for TRL 1.16). The trainer's rollout worker calls the
    job's vLLM routes: `vllm_server_base_url="http://any:TOKEN@HOST:PORT"`.

    TRL's own transfer needs NCCL and one receiver. This one saves the weights in the shared folder and publishes them
    as `RUN-LIFE-NUMBER` (LIFE: random, per object). Running responses continue with the new weights (mode keep), as in
    TRL. `max_staleness`: as in Publish.
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
        """Checks the connection to the job; the trainer calls it once, before the first weights. Raises ApiError."""
        self.client.job()

    def pause(self) -> None:
        """Does nothing: the publish itself pauses running responses."""

    def send_weights(self, iterator: Iterable[tuple[str, Any]]) -> None:
        """Saves the named tensors as they arrive, publishes them, and returns when every worker has loaded them."""
        version = f"{self.run}-{self._life}-{self._sent}"
        self._sent += 1  # also if the call fails: the fleet may still load the version
        with self.folder.writing(version) as shards:
            for name, tensor in iterator:
                shards.add(name, tensor)
        source = source_of(self.folder.path / version)
        what = Publish(version=version, source=source, mode="keep", max_staleness=self._max_staleness)
        self.client.publish(what, progress=self._progress)
        self.folder.note_published(version)
        self.version = version

    def resume(self) -> None:
        """Does nothing, as `pause`."""

    def destroy(self) -> None:
        """Does nothing: no resources are held."""


def sampling_of(args: Any) -> Sampling:
    """Returns the sampling of a GRPOConfig. Raises InputError for settings that openseer does not support."""
    if getattr(args, "repetition_penalty", 1.0) != 1.0:
        raise InputError(
            "GRPOConfig.repetition_penalty: a response could not continue on another worker with it; leave it at 1.0"
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
    """Returns adjacent equal prompts as groups of at most `size`, in order.
    A process may have only a part of a group."""
    groups: list[Group] = []
    for prompt, run in groupby(prompts):
        ids = token_ids(prompt)
        while count := len(list(islice(run, size))):
            groups.append(Group(id=f"p{len(groups)}", prompt_token_ids=ids, n=count))
    return groups


def _token_ids(prompt: Any, trainer: Any) -> list[int]:
    """Returns the prompt's token ids, as the trainer itself would render them."""
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

"""The parts of the manifest about generation: model, engine, prompts, sampling."""

from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from openseer_core.json_model import INT32_MAX, INT53_MAX
from openseer_core.manifest.base import (
    KeyRef,
    ManifestModel,
    NonNegative,
    Positive,
    PullPolicy,
    Text,
    VolumeClaim,
    VolumeClaimPath,
    allowed,
)
from openseer_core.manifest.engine_args import OWNED_ENGINE_ARGS

JobMode = Literal["batch", "serve"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
EngineName = Literal["vllm", "scripted"]
EngineProcess = Literal["inProcess", "child"]
Logprobs = Literal["sampled", "raw", "none"]


_NOT_CONTINUED = "the engine cannot continue it exactly when a response moves to another worker"
REFUSED_SAMPLING: dict[str, tuple[tuple[object, ...], str]] = {
    "presencePenalty": ((0,), _NOT_CONTINUED),
    "frequencyPenalty": ((0,), _NOT_CONTINUED),
    "repetitionPenalty": ((1,), _NOT_CONTINUED),
    "logitBias": (({},), _NOT_CONTINUED),
    "logitsProcessors": (([],), _NOT_CONTINUED),
    "badWords": (([],), _NOT_CONTINUED),
    "allowedTokenIds": (([],), _NOT_CONTINUED),
    "structuredOutputs": (({},), _NOT_CONTINUED),
    "bestOf": ((1,), "every response is kept; ask for more of them and choose among the results"),
    "useBeamSearch": ((False,), "responses are sampled; a beam cannot be divided over workers"),
}
"""Engines' sampling parameters that openseer refuses, in the manifest and on compatible routes: name in the manifest →
the values that mean "off" and are accepted, and the reason for refusing all others."""


def is_off(value: object, off: tuple[object, ...]) -> bool:
    """Whether a value is absent or one of `off`; `true` does not equal 1."""
    return value is None or any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in off)


class ScriptedPool(ManifestModel):
    """A KV pool that the scripted engine simulates."""

    bytes_per_token: Positive = Field(description="Bytes of a token of context in the pool.")
    bytes_per_second: float = Field(
        gt=0, description="Rate at which one worker fetches a context; it does nothing else meanwhile."
    )


class Scripted(ManifestModel):
    """Step-time model and capacity of the scripted engine."""

    step_seconds: float = Field(default=0.02, gt=0, le=3600, description="Duration of a step without requests.")
    step_seconds_per_request: float = Field(
        default=0.0005, ge=0, le=3600, description="Time that each running request adds to a step."
    )
    prefill_tokens_per_second: float = Field(
        default=20000, gt=0, description="Prompt tokens (and tokens recomputed after a move) processed per second."
    )
    slots: Positive = Field(default=32, description="Limit of concurrent requests in one worker.")
    kv_blocks: Positive = Field(default=4096, description="Blocks of the KV cache of one worker.")
    block_tokens: Positive = Field(default=16, description="Tokens in one block of the KV cache.")
    max_model_len: Positive = Field(default=32768, description="Limit of prompt and response together, in tokens.")
    pool: ScriptedPool | None = Field(
        default=None,
        description="A simulated KV pool that holds the context of every response that has run, so that it is fetched "
        "instead of computed again; unset: there is none. Mode batch only.",
    )


class ImageVolume(ManifestModel):
    """The files of an OCI image or artifact."""

    reference: Text = Field(description="Name of the image or artifact that holds the model's files.")
    pull_policy: PullPolicy | None = Field(
        default=None, description="When it is pulled; unset: Always for the tag latest, else IfNotPresent."
    )


class ModelVolume(ManifestModel):
    """The source of a model's files in Kubernetes."""

    pvc: VolumeClaim | None = Field(default=None, description="A persistent volume; excludes image.")
    image: ImageVolume | None = Field(
        default=None,
        description="An OCI image or artifact, which each node pulls once; excludes pvc. The nodes' container runtime "
        "must support image volumes.",
    )


class ModelCache(ManifestModel):
    """A volume for downloaded and compiled files."""

    pvc: VolumeClaim = Field(
        description="A persistent volume; with more than one worker pod its access mode is ReadWriteMany."
    )


NO_LORA_MODULES = frozenset({"lm_head", "embed_tokens"})
"""Modules that no adapter may change: with LoRA on the output layer an engine cannot score prompts, as a load must."""


class Lora(ManifestModel):
    """The engine's limits for LoRA adapters that a trainer publishes."""

    max_rank: Annotated[int, Field(ge=1, le=512)] = Field(
        default=16, description="Largest rank of an adapter; the engine reserves memory for the next of 8, 16, 32, …"
    )
    max_adapters: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Limit of adapters served at the same time, each under its own name."
    )
    target_modules: tuple[Text, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        max_length=64,
        strict=False,
        description="Last names of the modules that adapters may change, as the model's files have them. lm_head and "
        "embed_tokens are refused.",
    )


class Model(ManifestModel):
    """The model and the engine that runs it."""

    path: Text = Field(
        description="Local path or hub id of the model. A relative path is relative to the working directory, "
        "which in the worker image is the folder that holds examples/."
    )
    served_names: tuple[Text, ...] = Field(
        default=(),
        max_length=16,
        strict=False,
        description="Further names that requests of the compatible routes may give the model, beside path and the "
        "job's own name; read only in mode serve.",
    )
    tokenizer: Text | None = Field(
        default=None, description="Local path or hub id of the tokenizer; unset: the one at path."
    )
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the hub; unset: the hub's default branch."
    )
    dtype: Dtype = Field(
        default="auto", description="Number format of weights and activations; auto: that of the model's files."
    )
    engine: EngineName = Field(
        default="vllm",
        description="The engine. vllm: vLLM. scripted: generates the lengths that prompts state, with a step-time "
        "model and without a GPU, for studies and tests.",
    )
    engine_args: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Further arguments of the engine, under vLLM's own snake_case names. Refused are arguments that "
        "openseer sets itself: " + ", ".join(OWNED_ENGINE_ARGS) + "; and those that do not fit a worker, such as "
        "data_parallel_size (docs/engine-features.md lists them).",
    )
    engine_process: EngineProcess | None = Field(
        default=None,
        description="The process of the engine. inProcess: the worker's own. child: a child process. Unset: inProcess "
        "on a CPU, child on a GPU.",
    )
    scripted: Scripted = Field(
        default_factory=Scripted, description="The scripted engine's timing and capacity; read only with it."
    )
    lora: Lora | None = Field(
        default=None,
        description="Allows a trainer to publish LoRA adapters beside the model's weights; unset: none. Read only in "
        "mode serve.",
    )
    volume: ModelVolume | None = Field(
        default=None,
        description="A volume that holds the model's files, exactly one of pvc and image; mounted read-only at "
        "/models, so that a path on it begins with /models/. Read only in Kubernetes.",
    )
    cache: ModelCache | None = Field(
        default=None,
        description="A volume for files downloaded from the hub and compiled by the engine, mounted at "
        "/cache; unset: each pod has its own, which is deleted with it. Read only in Kubernetes.",
    )
    hub_token_secret: KeyRef | None = Field(
        default=None,
        description="A key of a Secret that holds an access token of the hub, given as HF_TOKEN; read only in "
        "Kubernetes.",
    )
    offline: bool = Field(
        default=False,
        description="Makes no request to the hub, so that a file missing on the volume and in the cache is an error at "
        "once; read only in Kubernetes.",
    )

    @property
    def tokenizer_path(self) -> str:
        return self.tokenizer or self.path


class PromptFields(ManifestModel):
    """The columns of a source's rows from which prompts are made. Other columns are ignored.

    A name with dots denotes a value within a map, for example reward_model.ground_truth.
    """

    prompt: Text | None = Field(default=None, description="Column with the prompt as text.")
    messages: Text | None = Field(default=None, description="Column with the prompt as chat messages.")
    prompt_token_ids: Text | None = Field(default=None, description="Column with the prompt as token ids.")
    id: Text | None = Field(
        default=None, description="Column with the prompt's id, text or a whole number; unset: its line's number."
    )
    metadata: tuple[Text, ...] = Field(
        default=(),
        max_length=64,
        strict=False,
        description="Columns that are returned with each result, under their names in its metadata.",
    )
    lengths: Text | None = Field(default=None, description="Column with the lengths of the responses, for studies.")


class Prompts(ManifestModel):
    """The source of a batch job's prompts."""

    path: Text | None = Field(
        default=None,
        description="JSON lines (plain or gzip), a Parquet file, or the folder of a dataset; relative to the working "
        "directory.",
    )
    pvc: VolumeClaimPath | None = Field(default=None, description="The same on a persistent volume.")
    config_map: KeyRef | None = Field(default=None, description="A key of a ConfigMap that holds such a file.")
    url: Annotated[str, StringConstraints(pattern=r"^https?://.+$")] | None = Field(
        default=None,
        description="Such a file, to fetch over HTTP.",
        json_schema_extra=allowed("a URL that begins with http:// or https://"),
    )
    fields: PromptFields | None = Field(
        default=None,
        description="Columns of the source's rows, exactly one of prompt, messages and promptTokenIds among them; "
        "unset: rows have the names of openseer's own prompt lines.",
    )


def _is_refused_and_off(name: object, value: object) -> bool:
    refused = REFUSED_SAMPLING.get(to_camel(name)) if isinstance(name, str) else None
    return refused is not None and is_off(value, refused[0])


def _none_is_zero(count: int) -> int:
    """Maps -1 to 0; both mean that no token is cut off."""
    return max(count, 0)


class Sampling(ManifestModel):
    """Sampling parameters."""

    @model_validator(mode="before")
    @classmethod
    def _off_is_absent(cls, value: object) -> object:
        """Drops a refused parameter whose value means "off"."""
        if not isinstance(value, dict):
            return value
        fields = cast("dict[object, object]", value)
        return {name: entry for name, entry in fields.items() if not _is_refused_and_off(name, entry)}

    temperature: float = Field(
        default=1.0, ge=0, le=2, description="Divides the logits; 0 takes the most likely token always."
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Keeps the most likely tokens up to this probability; 1 keeps all."
    )
    top_k: Annotated[int, AfterValidator(_none_is_zero)] = Field(
        default=0, ge=-1, le=INT32_MAX, description="Keeps this number of the most likely tokens; 0 or -1 keeps all."
    )
    min_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Keeps tokens at least this likely relative to the most likely one; 0 keeps all.",
    )
    max_tokens: Positive = Field(default=1024, description="Limit of a response, in tokens.")
    min_tokens: NonNegative = Field(
        default=0, description="Tokens before which a response does not end; at most maxTokens."
    )
    stop: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=16, strict=False, description="Texts that end a response when they appear in it."
    )
    stop_token_ids: tuple[Annotated[int, Field(ge=0, le=INT32_MAX)], ...] = Field(
        default=(), max_length=1024, strict=False, description="Token ids that end a response, beside the model's own."
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=INT53_MAX,
        description="Makes sampling repeatable as far as engine and placement allow; unset: drawn per run.",
    )
    logprobs: Logprobs = Field(
        default="sampled",
        description="Log-probability recorded with each token. sampled: of the distribution sampled from, with "
        "temperature and cuts applied. raw: of the model's unmodified distribution. none: not recorded.",
    )
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = Field(
        default=0,
        description="Also records, for each token, this number of the likeliest tokens in its place, with their "
        "log-probabilities, from the same distribution. Each takes 8 bytes per token in the store.",
    )
    score_from: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = Field(
        default=None,
        description="Samples nothing: the prompt's tokens from this position on (the first is 0) are the response, "
        "with the log-probability that the model gives each. Lengths, stops and seed are not read then, and a group "
        "has one response. Unset: responses are sampled.",
    )
    ignore_eos: bool = Field(
        default=False, description="Continues past the model's end-of-sequence token, up to maxTokens."
    )
    force_lengths: bool = Field(
        default=False,
        description="For studies: every response has exactly the length that its prompt line states in lengths. "
        "Mode batch only.",
    )

    @property
    def most_added(self) -> int:
        """Limit of the tokens that the engine adds to a prompt; with scoreFrom 1, and that token is dropped later."""
        return self.max_tokens if self.score_from is None else 1

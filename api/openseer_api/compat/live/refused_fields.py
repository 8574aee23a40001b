"""Fields of the protocols that openseer does not support: an error names them, so that none is silently ignored."""

from pydantic.alias_generators import to_snake

from openseer_core.manifest.generation import REFUSED_SAMPLING

Refusals = dict[str, tuple[tuple[object, ...], str]]
"""Maps a field to the values that mean "off", which are accepted, and to the reason why any other value is refused."""

MOST_SHOWN = 60
"""Limit of a caller's name or value in the text of an error, in characters."""
NOT_CONTINUED = "a response could not continue on another worker with it"
_ONLY_TEXT = "requests and responses are text, or tokens of text alone"
_ONLY_SAMPLED = "log-probabilities are recorded of sampled tokens and the likeliest ones, not of tokens by name"
_ONLY_OWN = "log-probabilities of a prompt are those of all its own tokens"
_AS_THEY_ARE = "prompts are not changed"
_NOT_IN_ANSWERS = "responses do not contain it"
_NO_PARSER = "responses are not parsed: the text contains the whole response"
_NO_SESSIONS = "requests are independent of each other"

SAMPLING: Refusals = {
    **{to_snake(name): refusal for name, refusal in REFUSED_SAMPLING.items()},
    "length_penalty": ((1,), "responses are sampled; there is no beam search"),
    **dict.fromkeys(
        (
            *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
            *("json_schema", "regex", "ebnf", "structural_tag"),
            *("thinking_token_budget", "repetition_detection", "trace_decode_token_ids"),
        ),
        ((), NOT_CONTINUED),
    ),
    "stop_regex": (([], ""), "give the texts as stop"),
    "watermarking": ((False,), NOT_CONTINUED),
    **dict.fromkeys(("prompt_logprob_token_ids", "prompt_logprob_start"), ((), _ONLY_OWN)),
    "logprob_token_ids": (([],), _ONLY_SAMPLED),
    "flat_logprobs": ((False,), _NOT_IN_ANSWERS),
    "routed_experts_prompt_start": ((0,), "routed experts are returned for all tokens"),
    **dict.fromkeys(("truncate_prompt_tokens", "truncation_side"), ((), _AS_THEY_ARE)),
}
"""Refused sampling parameters, by the names of OpenAI, vLLM and SGLang."""

OPENAI: Refusals = {
    "sampling_params": (({},), "give its fields beside the prompt"),
    "response_format": (({"type": "text"}, {}), NOT_CONTINUED),
    "return_token_offsets": ((False,), _NOT_IN_ANSWERS),
    "return_prompt_text": ((False,), _NOT_IN_ANSWERS),
    "return_mm_kwargs": ((False,), _ONLY_TEXT),
    "mm_payload": ((), _ONLY_TEXT),
    "return_hidden_states": ((False,), _NOT_IN_ANSWERS),
    "mm_processor_kwargs": (({},), _ONLY_TEXT),
    "lora_path": ((), "name the adapter as model"),
    "session_params": (({},), _NO_SESSIONS),
}
"""Refused fields of completions and chat completions, including those that vLLM and SGLang add."""

COMPLETIONS: Refusals = {
    "suffix": (("",), "a response continues its prompt; no text follows it"),
    "prompt_embeds": ((), _ONLY_TEXT),
}
"""Refused fields of completions alone."""

_NO_TOOLS = "render the prompt yourself and send token ids"
CHAT: Refusals = {
    "echo": ((False,), "a response does not repeat its prompt; prompt_logprobs scores the messages"),
    "functions": (([],), "use tools"),
    "function_call": (("none", "auto"), _NO_TOOLS),
    "chat_template": (
        (),
        "the model's own chat template is applied; to use another, render the prompt yourself and send token ids",
    ),
    "include_reasoning": ((True,), _NO_PARSER),
    "separate_reasoning": ((False,), _NO_PARSER),
    "media_io_kwargs": (({},), _ONLY_TEXT),
    "modalities": ((["text"],), _ONLY_TEXT),
    "audio": ((), _ONLY_TEXT),
    "web_search_options": ((), _NO_TOOLS),
    "verbosity": ((), "the model's own template may have such a variable: give it in chat_template_kwargs"),
    "moderation": ((), _NOT_IN_ANSWERS),
}
"""Refused fields of chat completions alone."""

VLLM_GENERATE: Refusals = {
    **dict.fromkeys(("features", "content_parts"), ((), _ONLY_TEXT)),
    "reasoning_ended": ((), NOT_CONTINUED),
    "reasoning_parser_kwargs": ((), NOT_CONTINUED),
    "return_token_offsets": ((False,), _NOT_IN_ANSWERS),
}
"""Refused fields of vLLM's own route, except sampling parameters."""

SGLANG_GENERATE: Refusals = {
    **dict.fromkeys(("image_data", "video_data", "audio_data"), (([], ""), _ONLY_TEXT)),
    **dict.fromkeys(("input_embeds", "positional_embed_overrides"), (([],), _ONLY_TEXT)),
    "mm_processor_kwargs": (({},), _ONLY_TEXT),
    "lora_id": (([], ""), "name the adapter in lora_path"),
    "custom_logit_processor": (("",), NOT_CONTINUED),
    "token_ids_logprob": (([],), _ONLY_SAMPLED),
    **dict.fromkeys(
        (
            *("return_hidden_states", "return_routed_experts", "return_indexer_topk"),
            *("return_sampling_mask", "return_prompt_token_ids", "return_bytes"),
        ),
        ((False, []), _NOT_IN_ANSWERS),
    ),
    "session_params": (({}, []), _NO_SESSIONS),
    "require_reasoning": ((False,), NOT_CONTINUED),
    "background": ((False,), "the response is returned when it has ended"),
}
"""Refused fields of SGLang's route, except sampling parameters."""

THE_FLEETS_OWN = frozenset({
    "user", "priority", "session_id", "cache_salt", "kv_transfer_params", "ec_transfer_params", "stream_interval",
    "parallel_tool_calls", "skip_reading_prefix_cache", "token_offsets", "data_parallel_rank",
    "output_kind", "skip_clone", "output_text_buffer_length",
    "metadata", "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier",
    "service_tier", "store",
})  # fmt: skip
"""Ignored fields. They concern the order, caching and movement of requests, the sender, messages between vLLM's
processes, and additional services of OpenAI. None of them changes a prompt or the sampling."""

#!/usr/bin/env bash
# One GRPO training of verl on the 8 GPUs of this machine, sampled by verl's own vLLM engines or by openseer's fleet:
#   examples/verl/train.sh stock|openseer [more of verl's settings]
# Both have the same model, data, batch, limits and share of GPU memory. Each step's figures go to runs/verl/WAY.jsonl.
set -eu
cd "$(dirname "$0")/../.."
way=${1:?stock or openseer}
shift
model=${MODEL:-Qwen/Qwen3-4B}
data=${DATA:-$HOME/data/dapo-math-17k.parquet}
folder=${WEIGHTS:-$PWD/runs/verl/weights}
mkdir -p runs/verl
export VERL_FILE_LOGGER_PATH=$PWD/runs/verl/$way.jsonl

rollout=actor_rollout_ref.rollout
settings=(
    algorithm.adv_estimator=grpo
    data.train_files="$data" data.val_files="$data"
    data.train_batch_size=128 data.max_prompt_length=2048 data.max_response_length=16384
    data.filter_overlong_prompts=True data.truncation=error
    actor_rollout_ref.model.path="$model"
    actor_rollout_ref.model.enable_gradient_checkpointing=True
    actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.ppo_mini_batch_size=128
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20480
    actor_rollout_ref.actor.use_kl_loss=False
    $rollout.n=16 $rollout.temperature=1.0
    $rollout.tensor_model_parallel_size=1
    $rollout.gpu_memory_utilization=0.6
    $rollout.calculate_log_probs=True
    trainer.nnodes=1 trainer.n_gpus_per_node=8
    trainer.total_training_steps="${STEPS:-12}"
    trainer.val_before_train=False trainer.test_freq=-1 trainer.save_freq=-1
    trainer.project_name=verl trainer.experiment_name="$way"
    'trainer.logger=[console,file]'
)
case $way in
stock) settings+=("$rollout.name=vllm") ;;
openseer)
    : "${OPENSEER_URL:?the address that openseer serve prints}"
    export VERL_USE_EXTERNAL_MODULES=openseer_client.verl_rollout
    settings+=("$rollout.name=openseer" "+$rollout.custom={weights_folder: $folder, share_gpus: true}")
    ;;
*)
    echo "found $way, allowed: stock, openseer" >&2
    exit 2
    ;;
esac
exec "${PYTHON:-python}" -m verl.trainer.main_ppo "${settings[@]}" "$@"

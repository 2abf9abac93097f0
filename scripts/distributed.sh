#!/usr/bin/env bash
# A verb of dynabert in several processes: they share each batch and every evaluation, and the first one writes.
#   distributed.sh --gpus 0,1,2,3 run glue/sst-2          four GPUs of this machine, one process each
#   distributed.sh --processes 2 run quickstart           two processes on this machine's CPU
# Several machines: the same command on each, with its own --rank; MASTER is an address of rank 0 that all reach. Code,
# data and --output_dir lie under the same paths on all of them, the output on a disk that they share.
#   distributed.sh --machines 2 --rank 0 --master 10.0.0.1:6170 --gpus 0,1 run glue/mnli --output_dir /shared/mnli
#   distributed.sh --machines 2 --rank 1 --master 10.0.0.1:6170 --gpus 0,1 run glue/mnli --output_dir /shared/mnli
# A batch has per_device_train_batch_size examples for each process: with four, a fourth of it is the same training.
set -euo pipefail

usage() {
    cat >&2 <<'END'
usage: distributed.sh (--gpus LIST | --processes N) [options] VERB [words of the verb]
  --gpus LIST      the GPUs of this machine, for example 0,1: one process each
  --processes N    processes on this machine's CPU, which share its cores
  --machines N     machines in all (default: 1); then also
  --rank N         the number of this one, from 0
  --master H:P     address and free port of the machine with rank 0
  --log_dir DIR    gets what each process prints (default: log); the first one's is shown, too
  --dry_run        only show the command
VERB is run, quickstart, finetune, rewire, train_width, train_depth, train_final, evaluate, baseline or search.
END
    exit 2
}

source "$(dirname "${BASH_SOURCE[0]}")/lib/chain.sh"
gpus='' processes='' machines=1 rank='' master='' log_dir=log dry_run=''
while [[ $# -gt 0 && $1 == -* ]]; do
    case $1 in
        --gpus | --processes | --machines | --rank | --master | --log_dir)
            [[ $# -gt 1 && $2 != -* ]] || die "$1 needs a value"
            declare "${1#--}=$2" && shift 2
            ;;
        --dry_run) dry_run=yes && shift ;;
        --help) usage ;;
        *) die "unknown argument '$1'; 'distributed.sh --help' lists what there is" ;;
    esac
done
[[ $# -gt 0 ]] || usage
[[ -n $gpus && -z $processes || -z $gpus && -n $processes ]] || die "name either --gpus or --processes"
[[ $gpus =~ ^([0-9]+(,[0-9]+)*)?$ ]] || die "--gpus are numbers such as 0,1, not '$gpus'"
[[ $processes =~ ^([1-9][0-9]*)?$ ]] || die "--processes is a number from 1, not '$processes'"
[[ $machines =~ ^[1-9][0-9]*$ ]] || die "--machines is a number from 1, not '$machines'"
where=()
if [[ $machines -gt 1 ]]; then
    [[ $rank =~ ^[0-9]+$ && $rank -lt $machines ]] || die "--rank is the number of this machine, from 0 to $((machines - 1))"
    [[ $master == *?:[0-9]* ]] || die "--master is the address and a free port of rank 0, for example 10.0.0.1:6170"
    where+=(--nnodes "$machines" --rank "$rank" --master "$master")
fi
if [[ -n $gpus ]]; then where+=(--gpus "$gpus"); else where+=(--nproc_per_node "$processes"); fi

chain() {
    step python -m paddle.distributed.launch "${where[@]}" --log_dir "$log_dir" "$root/.venv/bin/dynabert" "${words[@]}"
}

words=("$@")
run_chain "$dry_run"

#!/usr/bin/env bash
# Runs a verb of dynabert in several processes: batches and evaluations are split over them; rank 0 writes the files.
#   distributed.sh --gpus 0,1,2,3 run glue/sst-2          four GPUs of this machine, one process each
#   distributed.sh --processes 2 run quickstart           two processes on this machine's CPU
# Several machines: the same command on each, with its own --rank; --master is an address of rank 0 that all can reach.
# Code, data and --output_dir have the same paths on all machines, and --output_dir is on a shared disk.
#   distributed.sh --machines 2 --rank 0 --master 10.0.0.1:6170 --gpus 0,1 run glue/mnli --output_dir /shared/mnli
#   distributed.sh --machines 2 --rank 1 --master 10.0.0.1:6170 --gpus 0,1 run glue/mnli --output_dir /shared/mnli
# per_device_train_batch_size counts per process: with four processes, a quarter of it gives the same training.
set -euo pipefail

usage() {
    cat >&2 <<'END'
usage: distributed.sh (--gpus LIST | --processes N) [options] VERB [arguments of the verb]
  --gpus LIST      GPUs of this machine, for example 0,1: one process each
  --processes N    number of processes on the CPU of this machine, which share its cores
  --machines N     number of machines (default: 1); more than one need also:
  --rank N         number of this machine, from 0
  --master H:P     address and free port of the machine with rank 0
  --log_dir DIR    folder for the output of each process (default: log); that of rank 0 is also printed
  --dry_run        only print the command
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
        *) die "unknown argument '$1'; 'distributed.sh --help' lists all arguments" ;;
    esac
done
[[ $# -gt 0 ]] || usage
[[ -n $gpus && -z $processes || -z $gpus && -n $processes ]] || die "give either --gpus or --processes"
[[ $gpus =~ ^([0-9]+(,[0-9]+)*)?$ ]] || die "--gpus are numbers such as 0,1, not '$gpus'"
[[ $processes =~ ^([1-9][0-9]*)?$ ]] || die "--processes is a number from 1, not '$processes'"
[[ $machines =~ ^[1-9][0-9]*$ ]] || die "--machines is a number from 1, not '$machines'"
launch_options=()
if [[ $machines -gt 1 ]]; then
    [[ $rank =~ ^[0-9]+$ && $rank -lt $machines ]] || die "--rank is the number of this machine, from 0 to $((machines - 1))"
    [[ $master == *?:[0-9]* ]] || die "--master is the address and a free port of rank 0, for example 10.0.0.1:6170"
    launch_options+=(--nnodes "$machines" --rank "$rank" --master "$master")
fi
if [[ -n $gpus ]]; then launch_options+=(--gpus "$gpus"); else launch_options+=(--nproc_per_node "$processes"); fi

chain() {
    step python -m paddle.distributed.launch "${launch_options[@]}" --log_dir "$log_dir" "$root/.venv/bin/dynabert" "${verb[@]}"
}

verb=("$@")
run_chain "$dry_run"

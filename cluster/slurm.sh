#!/bin/bash
# A search on nodes that SLURM lends, from the first trial to best.yaml:
#
#   sbatch cluster/slurm.sh my.yaml --runs /shared/runs
#
# All that stands behind the file's name goes to `skeltune search`; the same command again goes on. What all nodes must
# see at the same path: the home (or SKELTUNE_HOME), the dataset, the run folder, the environment. Any #SBATCH line can
# be replaced on the command line: `sbatch --partition=a100 --nodes=4 cluster/slurm.sh ...`. Lines to look at: EDIT.

# EDIT the partition (and the account) where your site has no default:
##SBATCH --partition=gpu
##SBATCH --account=lab
# EDIT how much: one task a node is what this file is made for; memory and processors are a node's share.
#SBATCH --job-name=skeltune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=24:00:00
# Before the time is over the job is told (USR1), has the search stop and queues itself again; a node that fails is
# gone on without; what was printed before stays in the log.
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append

# EDIT how skeltune comes on the PATH, if it is not there: `module load ...`, `conda activate ...`, or the folder of a
# virtual environment. The nodes inherit what is exported here.
if [ -n "${SKELTUNE_VENV:-}" ]; then export PATH="$SKELTUNE_VENV/bin:$PATH"; fi

# EDIT the network that the nodes share (ib0, ...), if it is not the one by which SLURM reaches them.
INTERFACE=${SKELTUNE_INTERFACE:-}

# Nothing below needs editing. ------------------------------------------------------------------------------------------
set -euo pipefail
JOIN_S=${SKELTUNE_JOIN_S:-300} # seconds that nodes have to join; later ones still do, the search no longer waits
STOP_S=${SKELTUNE_STOP_S:-70}  # seconds that running trials have for their epoch, when the job's time is nearly over

say() { echo "skeltune: $*"; }
refuse() {
  echo "skeltune: $*" >&2
  exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || refuse "this file is for SLURM: sbatch $0 SPACE.yaml --runs /shared/runs"
[ $# -gt 0 ] || refuse "which search? sbatch cluster/slurm.sh SPACE.yaml --runs /shared/runs"
for tool in skeltune ray python3; do
  command -v "$tool" >/dev/null || refuse "no $tool on the PATH of $(hostname): see EDIT at the top of this file"
done

# The run folder, which every node must see (unless `--store` copies what trials leave).
runs=runs store='' before=''
for word in "$@"; do
  case $before in --runs) runs=$word ;; esac
  case $word in --runs=*) runs=${word#*=} ;; --store | --store=*) store=1 ;; esac
  before=$word
done

# A token of this job's own keeps everybody else out of its Ray. It is only ever read from a file of the user's: neither
# a command line nor the environment holds it.
cluster=$(printf %s "${SLURM_JOB_NAME:-skeltune}" | tr -c 'A-Za-z0-9_.-' _)-$SLURM_JOB_ID
state=${SKELTUNE_HOME:-$HOME/.skeltune}/clusters/$cluster
folder=/tmp/skeltune-$SLURM_JOB_ID # Ray's, on each node; short, as the names of sockets may have 107 characters
seen=''
steps=()
make_token() (
  umask 077
  rm -rf "$state" # of this job before it was queued again
  mkdir -p "$state"
  od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n' >"$state/token.part"
  mv "$state/token.part" "$state/token"
)

# The end of Ray, gently. Its steps read from a pipe that only this shell holds open, and end what they have started as
# soon as that closes, whatever happens to this shell; an srun that is killed would kill its step without a word.
end_ray() {
  local pid waited=0
  exec 8>&-
  for pid in ${steps[@]+"${steps[@]}"}; do
    while kill -0 "$pid" 2>/dev/null && [ "$waited" -lt 100 ]; do
      sleep 0.2
      waited=$((waited + 1))
    done
    kill -TERM "$pid" 2>/dev/null || true
  done
  steps=()
}
search='' asked='' deadline='' stop=INT
finish() {
  trap '' TERM USR1
  [ -z "$search" ] || kill -KILL "$search" 2>/dev/null || true # its journal is whole at any instant
  end_ray
  # scancel kills the steps before they have cleaned up; another node's folder then stays, a few MB in its /tmp
  if [ -d "$folder" ] && [ -O "$folder" ] && [ ! -L "$folder" ]; then rm -rf "$folder"; fi
  [ -z "$seen" ] || rm -f "$seen"
  rm -rf "$state"
}
trap finish EXIT
trap 'exit 143' TERM INT # scancel, or preemption
on_usr1() {              # the time is nearly over
  [ -z "$asked" ] || return 0
  asked=1 deadline=$SECONDS
  say "the job's time is nearly over; the search is asked to stop"
}
trap on_usr1 USR1

make_token
mkfifo -m 600 "$state/open"
exec 8<>"$state/open"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/token" PYTHONUNBUFFERED=1
unset RAY_AUTH_TOKEN RAY_ADDRESS # of another cluster
# As on clusters of other kinds (tuning/launch/env.py): health checks for trials of minutes, on nodes with much to do;
# no pages of figures without a token in front of them.
for setting in \
  RAY_health_check_initial_delay_ms=10000 RAY_health_check_period_ms=3000 RAY_health_check_timeout_ms=10000 \
  RAY_health_check_failure_threshold=4 RAY_gcs_rpc_server_reconnect_timeout_s=120 \
  RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1 RAY_USAGE_STATS_ENABLED=0; do
  [ -n "$(printenv "${setting%%=*}")" ] || export "${setting?}"
done

if [ -z "$store" ]; then
  mkdir -p "$runs"
  seen=$(cd "$runs" && pwd)/.$cluster
  : >"$seen"
fi

# Where the head is: the first node, by the address from which it reaches the second one.
address_towards() { # HOST
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 9))  # sends nothing
print(s.getsockname()[0])' "$1"
}
node_address() { scontrol -o show node "$1" | tr ' ' '\n' | sed -n 's/^NodeAddr=//p'; } # as SLURM itself reaches it
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
if [ -n "$INTERFACE" ]; then
  head=$(ip -4 -o addr show dev "$INTERFACE" | awk '{sub("/.*", "", $4); print $4; exit}')
  [ -n "$head" ] || refuse "$INTERFACE is no network of ${nodes[0]} with an address"
else
  far=192.0.2.1 # nobody's: what the default route says
  [ ${#nodes[@]} -eq 1 ] || far=$(node_address "${nodes[1]}")
  head=$(address_towards "$far" || hostname -I | cut -d' ' -f1)
  case $head in
  '' | 127.*) refuse "no address of ${nodes[0]} that other nodes reach: set SKELTUNE_INTERFACE to a network's name" ;;
  esac
fi

# Two ports of the job's own (Ray's head, and its server for clients, which cannot be turned off), or the next free ones
# where they are taken: two jobs may share a node. Ray finds all others itself.
port=$(python3 -c '
import contextlib, socket, sys
for k in range(6000):
    port = 20000 + 2 * ((int(sys.argv[1]) + k) % 6000)  # below those that systems hand out
    with socket.socket() as one, socket.socket() as two, contextlib.suppress(OSError):
        one.bind(("", port))
        two.bind(("", port + 1))
        sys.exit(print(port))
sys.exit("no free port")' "$SLURM_JOB_ID")

# What runs on each node, as a step of the job: Ray with what SLURM gave the job there, in the foreground. Folders of
# others are not trusted, Ray makes its own readable to all: so it lies in one that is not.
on_node() { # head|worker HEAD PORT FOLDER SEEN FIRST-NODE ADDRESS
  local role=$1 head=$2 port=$3 folder=$4 seen=$5 first=$6 me=$7 cpus memory store gpus files ours over left pid code=0
  fail() {
    echo "$*" >&2
    exit 1
  }
  [ -r "$RAY_AUTH_TOKEN_PATH" ] || fail "sees no $RAY_AUTH_TOKEN_PATH: set SKELTUNE_HOME to a folder all nodes share"
  [ -z "$seen" ] || [ -e "$seen" ] || fail "does not see ${seen%/*}: --runs must be a folder that all nodes share"
  if [ -O "$folder" ] && [ ! -L "$folder" ]; then rm -rf "$folder"; fi # of this job before it was queued again
  mkdir -m 700 "$folder" || fail "$folder is somebody else's"
  files=$(ulimit -Hn)
  ulimit -n "$files" # each worker takes many; more than the hard limit nobody may have
  [ -n "$me" ] || me=$(address_towards "$head")
  cpus=${SLURM_CPUS_ON_NODE:-1}
  gpus=${SLURM_GPUS_ON_NODE:-}
  if [ -z "$gpus" ] && [ -n "${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-}}" ]; then # an older SLURM
    gpus=$(printf '%s\n' "${CUDA_VISIBLE_DEVICES:-}" | awk -F, '{print NF}')
  fi
  memory=${SLURM_MEM_PER_NODE:-0} # MiB
  [ "$memory" -gt 0 ] || memory=$((${SLURM_MEM_PER_CPU:-0} * cpus))
  [ "$memory" -gt 0 ] || memory=$((${SLURM_MEM_PER_GPU:-0} * ${gpus:-0}))
  set -- --num-cpus="$cpus" --num-gpus="${gpus:-0}"
  store=1024 # MiB: trials pass each other nothing large
  if [ "$memory" -gt 0 ]; then
    [ $((memory / 8)) -ge "$store" ] || store=$((memory / 8 > 128 ? memory / 8 : 128))
    set -- "$@" --memory=$(((memory - store) * 1048576))
  fi
  set -- "$@" --object-store-memory=$((store * 1048576)) --temp-dir="$folder/ray" --include-log-monitor=false
  if [ "$role" = head ]; then
    set -- "$@" --head --port="$port" --include-dashboard=false --ray-client-server-port=$((port + 1))
  else
    set -- "$@" --address="$head:$port"
  fi
  echo "ray start $*"
  exec 7<&0 </dev/null
  ray start --block --disable-usage-stats --node-ip-address="$me" --node-name="$SLURMD_NODENAME" "$@" 7<&- &
  ray=$! ours='' over=''
  { cat >/dev/null && kill -TERM $$; } <&7 & # the job is over
  # When the node with the script is lost, SLURM (--no-kill) keeps the rest of the job for nothing until its time is over,
  # and Ray takes minutes to notice: so the others look whether it is still one of the job's, and queue the job again.
  watch() {
    while sleep "${SKELTUNE_WATCH_S:-60}"; do
      left=$(squeue -h -j "$SLURM_JOB_ID" -o %N) || continue # a controller that is away says nothing
      [ -n "$left" ] || continue
      scontrol show hostnames "$left" | grep -qxF "$first" && continue
      scontrol requeue "$SLURM_JOB_ID" || scancel "$SLURM_JOB_ID"
    done
  }
  if [ "$role" = worker ]; then watch 7<&- & fi
  below() { for pid in $(pgrep -P "$1"); do echo "$pid" && below "$pid"; done; }
  trap 'over=1; ours=$(below $$); kill -TERM "$ray" 2>/dev/null' TERM
  wait "$ray" || code=$?
  [ -z "$over" ] || wait "$ray" || true # the first wait was ended by the trap
  trap '' TERM
  # shellcheck disable=SC2086  # numbers, one a word
  kill -KILL $ours 2>/dev/null # what has outlived Ray
  rm -rf "$folder"
  exit "$code"
}
begin() { # head|worker NODE [ADDRESS]
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$2" --export=ALL --cpu-bind=none \
    bash -c "$(declare -f address_towards on_node); on_node \"\$@\"" on_node \
    "$1" "$head" "$port" "$folder" "$seen" "${nodes[0]}" "${3:-}" <"$state/open" >"$state/$2.log" 2>&1 8>&- &
  steps+=($!)
}
words_of() { # NODE: the last it said
  sed "s/^/    $1: /" "$state/$1.log" | grep -v ': *$' | tail -n 5
}

begin head "${nodes[0]}" "$head"
until (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null; do
  if ! kill -0 "${steps[0]}" 2>/dev/null || [ "$SECONDS" -gt "$JOIN_S" ]; then
    words_of "${nodes[0]}" >&2
    echo "skeltune: Ray did not start on ${nodes[0]}" >&2
    exit 1
  fi
  sleep 0.2
done
for node in "${nodes[@]:1}"; do begin worker "$node"; done

# Wait for all whose step runs; go on with those that have come.
missing=$(
  python3 - "$head:$port" "$JOIN_S" "${#nodes[@]}" "${nodes[@]}" "${steps[@]}" <<'END'
import sys, time
import ray


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


address, end, count = sys.argv[1], time.monotonic() + float(sys.argv[2]), int(sys.argv[3])
nodes = sys.argv[4 : 4 + count]
steps = dict(zip(nodes, sys.argv[4 + count :]))
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
while True:
    come = {node["NodeName"] for node in ray.nodes() if node["Alive"]}
    missing = [node for node in nodes if node not in come]
    if not any(runs(steps[node]) for node in missing) or time.monotonic() > end:
        break
    time.sleep(0.5)
have = ray.cluster_resources()
told = f"({have.get('CPU', 0):g} CPU, {have.get('GPU', 0):g} GPU)"
print(f"skeltune: {len(nodes) - len(missing)} of {len(nodes)} nodes have joined:", *sorted(come), told, file=sys.stderr)
print(*missing)
END
)
for node in $missing; do
  say "$node has not joined; the search goes on without it. It said:"
  words_of "$node"
done

# The search. A shell without a terminal has its background processes ignore Ctrl-C, so that is taken back.
log=/proc/$$/fd/1
before=$(stat -Lc %s "$log")
code=0 ran=''
if [ -z "$asked" ]; then
  ran=1
  (
    trap - INT
    exec skeltune search "$@" --address "$head:$port"
  ) 8>&- &
  search=$!
  # Asked to stop, it gets a Ctrl-C, which has trials end at their next epoch; later a second one, which does not wait
  # for them; and then it is ended.
  while kill -0 "$search" 2>/dev/null; do
    if [ -n "$asked" ] && [ "$SECONDS" -ge "$deadline" ]; then
      kill -"$stop" "$search" 2>/dev/null || true
      case $asked in
      1) asked=2 deadline=$((SECONDS + STOP_S)) ;;
      *) stop=KILL deadline=$((SECONDS + 15)) ;;
      esac
    fi
    sleep 0.2
  done
  wait "$search" || code=$?
  search=''
fi

# A search that was stopped says so in its last lines, and the log is a file where SLURM writes it.
unfinished() {
  [ -z "$ran" ] || [ "$code" -ge 128 ] || [ ! -f "$log" ] ||
    tail -c +$((before + 1)) "$log" | grep -q 'not finished yet'
}
if [ -n "$asked" ] && { [ "$code" -eq 0 ] || [ "$code" -ge 128 ]; } && unfinished; then
  finish
  trap - EXIT
  say "queued again; it goes on where it was"
  scontrol requeue "$SLURM_JOB_ID" && exit 0
  say "this site does not let jobs queue themselves again; submit the same command"
  exit 130
fi
exit "$code"

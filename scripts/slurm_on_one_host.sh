#!/usr/bin/env bash
# A real Slurm with two nodes on this machine, for tests: controller, two node daemons, munge; no
# systemd. Needs root and the Debian packages slurm-wlm and munge.
#   scripts/slurm_on_one_host.sh start FOLDER    then: export SLURM_CONF=FOLDER/slurm.conf
#   scripts/slurm_on_one_host.sh node FOLDER n1  start the daemon of one node (again)
#   scripts/slurm_on_one_host.sh stop FOLDER
set -euo pipefail

fail() { printf 'slurm_on_one_host.sh: %s\n' "$*" >&2; exit 1; }

configure() {
    local host cores memory
    host=$(hostname -s)
    cores=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p "$folder"/{state,n1,n2}
    cat >"$folder/slurm.conf" <<TEXT
ClusterName=one_host
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=${SLURM_PORT:-16817}
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=10
KillWait=5
RequeueExit=75
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-16817} + 1)) CPUs=$cores RealMemory=$memory
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((${SLURM_PORT:-16817} + 2)) CPUs=$cores RealMemory=$memory
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
TEXT
}

start() {
    command -v slurmctld slurmd munged >/dev/null || fail "apt-get install slurm-wlm munge"
    configure
    munge -n >/dev/null 2>&1 || start_munge
    slurmctld
    slurmd -N n1
    slurmd -N n2
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --Node --format=%T | grep -c idle)" = 2 ] && return
        sleep 1
    done
    fail "the nodes do not come up; see $folder/*.log"
}

start_munge() {
    [ -f /etc/munge/munge.key ] || (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
    mkdir -p /run/munge
    chown munge: /etc/munge/munge.key /run/munge
    runuser -u munge -- munged
}

stop() {
    local pid
    for pid in "$folder"/*.pid; do
        [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
    done
}

command=${1:-}
folder=$(realpath -m "${2:-}")
[ -n "${2:-}" ] || fail "start, node or stop, and a folder"
export SLURM_CONF=$folder/slurm.conf
case $command in
    start) start ;;
    node) slurmd -N "${3:?name of the node}" ;;
    stop) stop ;;
    *) fail "unknown command '$command'" ;;
esac

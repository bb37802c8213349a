#!/usr/bin/env bash
# A SLURM of one machine, gone with this process and seen by nobody else.
#
#     unshare --mount --pid --fork --mount-proc --kill-child bash cluster.sh FOLDER NODES
#
# Starts munged, slurmctld and NODES slurmds with four fake GPUs each, writes FOLDER/ready and
# stays. Everything it needs under /etc, /run and /var lies in memory file systems of its own mount
# namespace. `nsenter --mount --pid --target PID COMMAND` runs a command inside.
set -euo pipefail

folder=$1
nodes=$2
host=$(hostname -s)

for path in /run /etc/slurm /etc/munge /var/lib/munge /var/log/munge; do
    mkdir -p "$path"
    mount -t tmpfs -o mode=0755 tmpfs "$path"
done
mkdir -p /run/munge /run/slurm /run/slurm/state
dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
chmod 0400 /etc/munge/munge.key

# SLURM counts device files and hands out their numbers; these are copies of /dev/null.
mkdir /run/devices
for gpu in 0 1 2 3; do
    mknod "/run/devices/nvidia$gpu" c 1 3
done
echo "Name=gpu Type=a100 File=/run/devices/nvidia[0-3]" >/etc/slurm/gres.conf

cat >/etc/slurm/slurm.conf <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=/run/slurm/state
SlurmdSpoolDir=/run/slurm/spool.%n
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
# no cgroups, no systemd, no data base
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
# 32 CPUs and much memory on whatever machine this is
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# finished jobs stay in the list, so that squeue can tell of them
MinJobAge=3600
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
MaxArraySize=20001
KillWait=${KILL_WAIT:-30}
ReturnToService=2
CONF
for ((node = 1; node <= nodes; node++)); do
    echo "NodeName=node$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((17100 + node))" \
        "CPUs=32 RealMemory=400000 Gres=gpu:a100:4 State=UNKNOWN"
done >>/etc/slurm/slurm.conf
echo "PartitionName=main Nodes=node[1-$nodes] Default=YES MaxTime=INFINITE State=UP" \
    >>/etc/slurm/slurm.conf

munged --force 2>"$folder/munged.log"
slurmctld -c
for ((node = 1; node <= nodes; node++)); do
    slurmd -N "node$node"
done
for _ in $(seq 120); do
    if [ "$(sinfo -h -o '%D %T')" = "$nodes idle" ]; then
        touch "$folder/ready"
        while sleep 3600; do :; done # bash, not sleep: it reaps what jobs leave
    fi
    sleep 0.5
done
sinfo -N -l >&2
scontrol show nodes >&2
exit 1

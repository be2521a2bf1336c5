#!/bin/bash
# how long a DomU's own heartbeat is silent under each plan, and that nothing is lost
# lab: suites=bookworm:full,trixie:full vg=8G mem=5G time=1800
. /lab/lib.sh

lost=0

# guest NAME [FORMAT]: a running guest on an image of its own, with 64 MiB of data.
guest() {
    local image=/srv/images/$1.img disk=file:/srv/images/$1.img,xvda,w
    lab_image "$image" 192M
    mkdir -p /mnt/image && mount -o loop "$image" /mnt/image
    head -c 64M /dev/urandom >/mnt/image/data
    umount /mnt/image
    if [ "${2-}" = qcow2 ]; then
        qemu-img convert -f raw -O qcow2 "$image" "${image%.img}.qcow2"
        rm "$image"
        disk=${image%.img}.qcow2,qcow2,xvda,w
    fi
    lab_domu "$1" "$disk"
    check "$1 starts" lab_start "$1"
    lab_wait_records "$1" 30 120
}

# timed NAME WHAT COMMAND...: run it, and remember from when to when.
timed() {
    local name=$1 what=$2
    shift 2
    from=$(date +%s%N)
    check "$name: $what" "$@"
    lab_wait_records "$name" $(($(lab_records "$name") + 30)) 180
    to=$(date +%s%N)
}

# silent NAME: the longest silence of a guest in that time, in seconds.
silent() {
    local logs=("/var/log/xen/console/guest-$1.log")
    [ ! -e "${logs[0]%.log}--incoming.log" ] || logs+=("${logs[0]%.log}--incoming.log")
    judge --gap 50ms "${logs[@]}" >/run/judge.json || true # verified when it ends
    jq --argjson from "$from" --argjson to "$to" '[.domains[].gaps[] | select(.end_ns > $from and .start_ns < $to) | .seconds] | max // 0.05' /run/judge.json
}

# boots NAME: how often the guest booted.
boots() { lab_console "$1" | grep -c '^GUEST verified disk=xvda ' || true; }

# ended NAME DEVICE: the guest ends, its file system is clean, it finds all that it wrote at its next start.
ended() {
    check "$1 shuts down" lab_shutdown "$1"
    blockdev --flushbufs "$2"
    check "$1: the file system is clean" e2fsck -fn "$2"
    local n
    n=$(boots "$1")
    check "$1 starts" lab_start "$1"
    wait_for 180 lab_said "$1" '^GUEST verified disk=xvda ' $((n + 1)) || fail "$1 does not verify its records"
    check "$1 shuts down" lab_shutdown "$1"
    lab_judge "$1"
    lost=$((lost + $(jq .lost "$LAB_RESULT/judge-$1.json")))
    lvremove -q -y "${2#/dev/}"
}

lab_vg
lab_images_lv 1536M
lab_baseline
reboots=0

guest restart
again() { domuswitch stop restart && domuswitch start restart; }
timed restart "stop and start, for comparison" again
restart_gap=$(silent restart)
check "restart ends" lab_shutdown restart

guest snapshot
timed snapshot "plan snapshot" image-to-lv --to vg0 snapshot
snapshot_gap=$(silent snapshot)
ended snapshot /dev/vg0/lv-snapshot-xvda

guest mirror
timed mirror "plan mirror" image-to-lv --plan mirror --prepare --to vg0 mirror
mirror_gap=$(silent mirror)
timed mirror "finish alone" image-to-lv --plan mirror --cutover mirror
finish_gap=$(silent mirror)
ended mirror /dev/vg0/mirror-xvda

# live METHOD: a guest moves without a reboot, by the method that domuswitch chooses.
live() {
    local n
    n=$(boots "$1")
    timed "$1" "plan live" image-to-lv --plan live --to vg0 "$1" 2>&1
    reboots=$((reboots + $(boots "$1") - n))
}
migrate_gap=null
if xl info | grep virt_caps | grep -q shadow; then
    guest migrate
    live migrate
    migrate_gap=$(silent migrate)
    ended migrate /dev/vg0/migrate-xvda
fi

# With too little free memory for a second copy, it is saved and restored.
guest restore
printf 'name = "filler"\ntype = "pv"\nkernel = "/boot/vmlinuz-%s"\nmemory = %d\n' "$(uname -r)" $(($(xl info | awk '$1 == "free_memory" { print $3 }') - 200)) >/run/filler.cfg
xl create -q -p /run/filler.cfg
live restore
xl destroy filler
restore_gap=$(silent restore)
ended restore /dev/vg0/restore-xvda

guest qmp qcow2
lvcreate -q -y -n qmp-xvda -L 192M vg0
n=$(boots qmp)
timed qmp "live by QEMU" domuswitch live --overwrite qmp xvda=/dev/vg0/qmp-xvda
reboots=$((reboots + $(boots qmp) - n))
qmp_gap=$(silent qmp)
ended qmp /dev/vg0/qmp-xvda

cat <<TABLE

silence of the guest's own heartbeat, in seconds
  stop and start      $restart_gap
  plan snapshot       $snapshot_gap
  plan mirror         $mirror_gap
  live, migrated      $migrate_gap
  live, restored      $restore_gap
  live, by QEMU       $qmp_gap
  mdmirror finish     $finish_gap

TABLE
lab_result restart_gap_s "$restart_gap"
lab_result snapshot_gap_s "$snapshot_gap"
lab_result mirror_gap_s "$mirror_gap"
lab_result live_migrate_gap_s "$migrate_gap"
lab_result live_restore_gap_s "$restore_gap"
lab_result live_qmp_gap_s "$qmp_gap"
lab_result finish_gap_s "$finish_gap"
lab_result records_lost "$lost"
lab_result reboots_live "$reboots"
check "nothing was lost" test "$lost" = 0
check "no guest that moved live rebooted" test "$reboots" = 0
check "finish is under a tenth of a restart" awk -v f="$finish_gap" -v r="$restart_gap" 'BEGIN { exit !(f * 10 < r) }'
lab_leftovers

# shellcheck shell=bash
# lib.sh: what scenarios share. A scenario starts with ". /lab/lib.sh"; any
# command that fails ends it.
#
# From the lab: LAB_SUITE, LAB_XEN (yes or no), LAB_DISKS (the empty disks), LAB_BOOT
# (1, and one more after each lab_crash), LAB_RESULT (a folder that is brought back),
# LAB_TIME_FACTOR.

if [[ $- != *i* ]]; then
    set -euo pipefail
    trap 'echo "$0: line $LINENO: exit status $?: $BASH_COMMAND" >&2' ERR
    set -E
fi

# fail MESSAGE: end the scenario as failed.
fail() {
    echo "FAIL: $*"
    exit 1
}

# check WHAT COMMAND...: run a command that must succeed, and say what it shows.
check() {
    local what=$1 start=$SECONDS
    shift
    "$@" || fail "$what: $*: exit status $?"
    echo "ok: $what ($((SECONDS - start)) s)"
}

# wait_for SECONDS COMMAND...: until a command succeeds; fails when it does not in time.
wait_for() {
    local end
    end=$(awk -v s="$1" -v f="$LAB_TIME_FACTOR" -v now="$SECONDS" 'BEGIN { print int(now + s * f) }')
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.5
    done
}

# lab_result KEY VALUE: add a field to the final JSON.
lab_result() {
    printf '%s\t%s\n' "$1" "${2//[$'\t\n']/ }" >>"$LAB_RESULT/fields"
}

# lab_crash: the host goes down, as by a power failure: nobody is asked, nothing is
# synced. It never returns; the scenario runs again from its beginning, with LAB_BOOT
# one more (header: boots=N). Only what tells of this run is saved before: what was
# acknowledged on the guests' consoles is what the judge asks for afterwards. Nothing
# else may be: a sync could save what the crash is to lose.
lab_crash() {
    echo "the host goes down"
    find "$LAB_RESULT" /var/log/xen -type f -exec sync {} +
    echo "@lab@ crash" >/dev/console
    sleep infinity
}

# lab_recover DOMAIN...: what a host does at boot after a crash, and what the lab keeps
# in memory for each domain.
lab_recover() {
    local name
    vgchange -q -a y
    [ ! -e /dev/vg0/images ] || mount /dev/vg0/images /srv/images
    for name; do
        lab_nodes "$name"
    done
}

# lab_vg [VG [N]]: make a volume group (vg0) on the Nth empty disk (1).
lab_vg() {
    local disks
    read -ra disks <<<"$LAB_DISKS"
    local disk=${disks[${2:-1} - 1]}
    pvcreate -q "$disk"
    vgcreate -q "${1:-vg0}" "$disk"
}

# lab_images_lv SIZE [FSTYPE]: an LV vg0/images with a file system, mounted at /srv/images.
lab_images_lv() {
    lvcreate -q -y -W n -n images -L "$1" vg0
    "mkfs.${2:-ext4}" -q /dev/vg0/images
    mkdir -p /srv/images
    mount /dev/vg0/images /srv/images
}

# lab_image FILE SIZE [FSTYPE]: a sparse image file that holds one bare file system.
lab_image() {
    truncate -s "$2" "$1"
    "mkfs.${3:-ext4}" -q "$1"
}

# lab_domu NAME DISK...: write /etc/xen/NAME.cfg for a PV guest. A DISK is an xl disk
# such as file:/srv/images/vm3.img,xvda,w. Words in LAB_DOMU_OPTIONS go to the guest's
# command line (test/lab/guest/options.go), LAB_DOMU_MEM is its memory in MiB, LAB_RATE
# how many records a second it writes to each disk: more of them slow all of dom0 down.
lab_domu() {
    local name=$1 disk
    shift
    {
        echo "name = \"$name\""
        echo 'type = "pv"'
        echo "kernel = \"/boot/vmlinuz-$(uname -r)\""
        echo 'ramdisk = "/lab/guest.cpio"'
        echo "memory = ${LAB_DOMU_MEM:-256}"
        echo 'vcpus = 1'
        echo "extra = \"console=hvc0 quiet lab.rate=${LAB_RATE:-10} ${LAB_DOMU_OPTIONS:-}\""
        echo 'disk = ['
        for disk; do
            echo "    '$disk',"
        done
        echo ']'
        echo 'on_poweroff = "destroy"'
        echo 'on_reboot = "restart"'
        echo 'on_crash = "destroy"'
    } >"/etc/xen/$name.cfg"
    lab_nodes "$name"
}

# lab_nodes NAME: the nodes in xenstore by which a guest is told, and where it keeps the
# number of its last acknowledged record outside its disks: what its console knows of.
lab_nodes() {
    local name=$1 node value
    for node in acked acked-xvdb command result; do
        case $node in
        acked) value=$(lab_records "$name") ;;
        acked-*) value=$(lab_records "$name" "${node#acked-}") ;;
        *) value='' ;;
        esac
        xenstore-write "/lab/$name/$node" "$value"
        xenstore-chmod "/lab/$name/$node" b0
    done
}

# lab_tell NAME COMMAND: give a guest a command (test/lab/guest/commands.go) and wait for
# its answer.
lab_tell() {
    local log=/var/log/xen/console/guest-$1.log from name=$1
    shift
    from=$(stat -c %s "$log")
    xenstore-write "/lab/$name/command" "$*"
    judge --wait-text "GUEST did $*" --from "$from" --timeout 180s "$log" >/run/lab-told || fail "$name does not answer to: $*"
    grep -q "GUEST did $* ok" /run/lab-told || fail "$name: $*: $(cat /run/lab-told)"
}

# lab_judge NAME: fail unless the judge finds that nothing a guest acknowledged was lost.
lab_judge() {
    local logs=("/var/log/xen/console/guest-$1.log")
    [ ! -e "${logs[0]%.log}--incoming.log" ] || logs+=("${logs[0]%.log}--incoming.log")
    judge "${logs[@]}" >"$LAB_RESULT/judge-$1.json" || fail "$1 lost records: $(cat "$LAB_RESULT/judge-$1.json")"
    echo "ok: $1 lost nothing: $(jq -c '[.domains[].disks | to_entries[] | {(.key): .value.acked}] | add' "$LAB_RESULT/judge-$1.json") acknowledged"
}

# lab_start NAME: start a guest from /etc/xen/NAME.cfg.
lab_start() {
    xl create -q "/etc/xen/$1.cfg"
}

# lab_running NAME: is there such a domain?
lab_running() {
    xl domid "$1" >/dev/null 2>&1
}

# lab_shutdown NAME [SECONDS]: ask a guest to power off and wait until it is gone.
lab_shutdown() {
    xl shutdown "$1" >/dev/null
    wait_for "${2:-120}" lab_gone "$1" || fail "$1 does not shut down"
}

lab_gone() { ! lab_running "$1"; }

# lab_console NAME: all that a guest ever wrote on its console. A guest that was
# migrated to this host itself writes under the name it had while it came in.
lab_console() {
    local log
    for log in "/var/log/xen/console/guest-$1.log" "/var/log/xen/console/guest-$1--incoming.log"; do
        [ ! -e "$log" ] || tr -d '\r' <"$log"
    done
}

# lab_said NAME PATTERN [N]: did a guest write N (1) lines that match an extended pattern?
lab_said() {
    (($(lab_console "$1" | grep -cE -- "$2" || true) >= ${3:-1}))
}

# lab_intact NAME: did a guest never report a loss or another failure?
lab_intact() { ! lab_said "$1" '^GUEST (LOST|FAIL)'; }

# lab_records NAME [DISK]: the highest record number that a guest called written, or 0.
lab_records() {
    lab_console "$1" | awk -v disk="${2:-xvda}" '
        $1 == "ACK" && $2 == disk { k = split($3, r, "-"); if (r[k] + 0 > max) max = r[k] + 0 }
        END { print max + 0 }'
}

lab_has_records() { (($(lab_records "$1" "${3:-xvda}") >= $2)); }

# lab_wait_records NAME N SECONDS [DISK]: until a guest has written record number N.
lab_wait_records() {
    wait_for "$3" lab_has_records "$1" "$2" "${4:-xvda}" ||
        fail "$1 has written $(lab_records "$1" "${4:-xvda}") of $2 records after $3 s; it said: $(lab_console "$1" | tail -n 5)"
}

# lab_gotest PACKAGE [FLAGS]: run a package's tests (header: gotest=PACKAGE) in their folder.
lab_gotest() {
    local dir=/lab/tests/${1#./}
    shift
    (cd "$dir" && "./$(basename "$dir").test" -test.v "$@")
}

# lab_move NAME FLAG...: move a running guest with image-to-lv and judge it: it writes on
# its volumes, finds all that it ever wrote there at its next start, and nobody but the
# guest wrote to its images. It is left shut down.
lab_move() {
    local name=$1 records starts
    shift
    check "$name moves: image-to-lv $*" image-to-lv "$@" "$name"
    records=$(lab_records "$name" "$LAB_ROOT_DISK")
    lab_wait_records "$name" $((records + 20)) 180 "$LAB_ROOT_DISK"
    check "$name shuts down on its volumes" lab_shutdown "$name"
    starts=$(lab_console "$name" | grep -c "^GUEST verified disk=$LAB_ROOT_DISK ")
    check "$name starts on its volumes" lab_start "$name"
    wait_for 180 lab_said "$name" "^GUEST verified disk=$LAB_ROOT_DISK " $((starts + 1)) || fail "$name does not verify its records"
    check "$name shuts down again" lab_shutdown "$name"
    lab_judge "$name"
    check "nobody wrote to the images of $name since" lab_images_kept "$name"
}
LAB_ROOT_DISK=${LAB_ROOT_DISK:-xvda}

# lab_survived [N]: one more point (or N) where something was killed, or the host went
# down, and what was left was whole. lab_points NAME says how many in the result, after
# the judge: what scripts/test kill-sweep adds up.
lab_survived() { echo $(($(lab_survivals) + ${1:-1})) >"$LAB_RESULT/survived"; }
lab_survivals() { cat "$LAB_RESULT/survived" 2>/dev/null || echo 0; }
lab_points() {
    lab_judge "$1"
    lab_result points "$(lab_survivals)"
    lab_result survived "$(lab_survivals)"
    lab_result records_lost "$(jq .lost "$LAB_RESULT/judge-$1.json")"
}

# lab_images_kept NAME: every image is as young as the last copy saw it.
lab_images_kept() {
    # Not by jq alone: it rounds numbers as large as nanoseconds.
    grep '"kind":"copied"' "/var/lib/xenlvm/$1/journal.jsonl" |
        while read -r line; do
            printf '%s\t%s\t%s\n' "$(jq -r .data.vdev <<<"$line")" "$(grep -o '"source_mtime_ns":[0-9]*' <<<"$line" | cut -d: -f2)" "$(jq -r .data.source <<<"$line")"
        done | awk -F'\t' '{ last[$1] = $0 } END { for (v in last) print last[v] }' |
        while IFS=$'\t' read -r vdev stamp image; do
            [ "$(stat -c %.9Y "$image" | tr -d .)" = "$stamp" ] || { echo "$vdev: $image was written to"; exit 1; }
        done
}

# lab_resources: everything in use that a tool of ours could leave behind, one a line:
# what it is, and a name that stays the same when it is made again.
lab_resources() {
    lab_in_use | sed 's/ *$//' | sort
}

lab_in_use() {
    losetup --list --noheadings --output BACK-FILE | sed 's/^/loop /'
    dmsetup ls 2>/dev/null | awk '$0 != "No devices found" { print "dm", $1 }'
    lvs --noheadings -o vg_name,lv_name,lv_tags --separator ' ' | awk '{ print "lv", $1 "/" $2, $3 }'
    awk '$1 ~ /^md/ { print "md", $1 }' /proc/mdstat
    awk '{ print "mount", $5 }' /proc/self/mountinfo
    find /run/udev/rules.d -type f -printf 'rules %f\n' 2>/dev/null || true
    [ "$LAB_XEN" = no ] || xl list | awk 'NR > 1 { print "domain", $1 }'
}

# lab_baseline: remember what is in use, before the work under test begins.
lab_baseline() {
    lab_resources >/run/lab-baseline
}

# lab_new: what is in use now and was not at the baseline.
lab_new() {
    lab_resources | comm -13 /run/lab-baseline -
}

# lab_leftovers [PATTERN...]: report what is in use now and was not at the baseline. A
# shell pattern such as 'lv vg0/vm3*' takes out what the work was meant to make. Every
# scenario ends with it; it may be called more than once.
lab_leftovers() {
    local line pattern
    : >>"$LAB_RESULT/leftovers"
    lab_new | while read -r line; do
        for pattern; do
            # shellcheck disable=SC2053 # a pattern is meant
            [[ $line != $pattern ]] || continue 2
        done
        echo "LEFT: $line"
        echo "$line" >>"$LAB_RESULT/leftovers"
    done
}

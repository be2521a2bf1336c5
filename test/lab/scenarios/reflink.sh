#!/bin/bash
# a running DomU whose image lies on an xfs without LVM moves onto a volume: each pass copies from a clone of the image,
# reads no more than what changed between two clones, misses nothing, and leaves nothing
# lab: suites=bookworm,trixie:full vg=2G,2G time=1500
. /lab/lib.sh

# pass FLAG...: a pass of imgconv, which says what it did in /run/pass.
pass() {
    local got=0
    imgconv --snapshot --json "$@" vm3 >/run/pass 2>/run/said || got=$?
    cat /run/said
    [ "$got" = 0 ] || fail "imgconv --snapshot $*: status $got: $(cat /run/pass)"
    jq -c '.disks[] | {copied_from, delta, verified, bytes_read, bytes_written, bytes_zeroed}' /run/pass
}
of() { jq -r ".disks[0].$1" /run/pass; }
# differ: how many bytes of the image differ from the volume, in blocks of 4 KiB.
differ() {
    echo 3 >/proc/sys/vm/drop_caches
    python3 - /srv/images/vm3.img /dev/vg0/vm3-xvda <<'PYTHON'
import sys
BLOCK, MANY = 4096, 256
changed = 0
with open(sys.argv[1], "rb") as image, open(sys.argv[2], "rb") as volume:
    while a := image.read(BLOCK * MANY):
        b = volume.read(len(a))
        if a != b:
            changed += sum(a[i:i + BLOCK] != b[i:i + BLOCK] for i in range(0, len(a), BLOCK))
print(changed * BLOCK)
PYTHON
}
clones() { find /srv/images -name '.xenlvm-*' -printf '%f '; }
# work FILE: what the DomU does between two passes.
work() {
    lab_tell vm3 rewrite xvda:kept 2M 4M
    lab_tell vm3 fill "xvda:$1" 8M
    lab_tell vm3 trim xvda
    lab_tell vm3 sync
}
kept=('lv vg0/vm3-xvda*' 'dm vg0-vm3--xvda')
leftovers() {
    lab_leftovers "${kept[@]}"
    [ ! -s "$LAB_RESULT/leftovers" ] || fail "left: $(cat "$LAB_RESULT/leftovers")"
}

lab_vg
read -ra disks <<<"$LAB_DISKS"
mkfs.xfs -q "${disks[1]}"
mkdir -p /srv/images
mount "${disks[1]}" /srv/images
check "it can clone" grep -q reflink=1 <(xfs_info /srv/images)
lab_image /srv/images/vm3.img 128M
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
check "start" lab_start vm3
lab_wait_records vm3 20 120
lab_tell vm3 fill xvda:kept 16M
lab_tell vm3 fill xvda:deleted 8M
lab_tell vm3 sync
lab_baseline

imgconv --snapshot --dry-run --to vg0 vm3 >/run/plan
cat /run/plan
check "the plan says how" grep -qx 'cp --reflink=always /srv/images/vm3.img /srv/images/.xenlvm-vm3-xvda-snap' /run/plan
check "and was only a plan" test -z "$(clones)"

pass --whole --keep-base --to vg0
check "it is copied from a clone" test "$(of copied_from) $(of delta)" = "clone null"
check "the clone is kept" test "$(clones)" = ".xenlvm-vm3-xvda-base "
check "nothing is mounted" test -z "$(lab_new | grep -E 'mount|loop' || true)"
work first
lab_tell vm3 delete xvda:deleted

pass --whole --keep-base
check "two clones tell what changed" test "$(of delta)" = "extents of two clones"
check "the newer one is kept" test "$(clones)" = ".xenlvm-vm3-xvda-base2 "
work second
check "stop" lab_shutdown vm3
really=$(differ)
pass --whole --final
check "two clones tell what changed" test "$(of delta)" = "extents of two clones"
echo "$really bytes really changed, imgconv read $(of bytes_read) and wrote $(of bytes_written)"
lab_result really_changed_bytes "$really"
lab_result read_bytes "$(of bytes_read)"
missed=$(differ)
lab_result missed_blocks $((missed / 4096))
check "volume and image are equal" test "$missed" = 0
check "something changed" test "$really" -gt $((8 << 20))
check "at most 1.1 times what changed was read" test $(($(of bytes_read) * 10)) -le $((really * 11))
check "no clone is left" test -z "$(clones)"
leftovers

echo "a file system that is nearly full"
fallocate -l "$(df --output=avail -B1 /srv/images | tail -n 1 | awk '{ print $1 - 125 * 1048576 }')" /srv/images/filler
pass --whole --keep-base
check "what could fill it is not kept" grep -q 'the clone is not kept as a base' /run/said
check "no clone is left" test -z "$(clones)"
rm /srv/images/filler

echo "a run that is killed"
check "start" lab_start vm3
lab_wait_records vm3 $(($(lab_records vm3) + 20)) 120
got=0
imgconv --snapshot --whole --bwlimit 4M vm3 >/dev/null 2>&1 &
pid=$!
wait_for 60 test -e /srv/images/.xenlvm-vm3-xvda-snap || fail "it makes no clone"
kill -9 $pid
wait $pid || got=$?
check "it was killed" test $got = 137
check "its clone is left" test "$(clones)" = ".xenlvm-vm3-xvda-snap "

lab_move vm3
check "no clone is left" test -z "$(clones)"
leftovers

#!/bin/bash
# lvsnap changed misses no block that a running DomU changed, on a thick and on a thin origin
# lab: suites=bookworm:full vg=4G time=900
. /lab/lib.sh

# compared BEFORE AFTER MAP: what really changed from one file or device to the other, what
# the map has, and how many blocks of 4 KiB the map misses: by reading all of both.
compared() {
    python3 - "$@" <<'PYTHON'
import bisect, sys
BLOCK, MANY = 4096, 256
ranges = [tuple(map(int, line.split(" "))) for line in open(sys.argv[3])]
starts = [r[0] for r in ranges]
changed = missed = at = 0
with open(sys.argv[1], "rb") as before, open(sys.argv[2], "rb") as after:
    while True:
        a, b = before.read(BLOCK * MANY), after.read(BLOCK * MANY)
        assert len(a) == len(b)
        if not a:
            break
        for i in range(0, len(a) if a != b else 0, BLOCK):
            n = len(a[i:i + BLOCK])
            if a[i:i + BLOCK] == b[i:i + BLOCK]:
                continue
            changed += n
            r = bisect.bisect_right(starts, at + i) - 1
            if r < 0 or sum(ranges[r]) < at + i + n:
                missed += 1
        at += len(a)
print(changed, sum(r[1] for r in ranges), missed)
PYTHON
}

# judged PREFIX BEFORE AFTER MAP: compare, and add the numbers to the result.
judged() {
    local what=$1 numbers lost
    shift
    numbers=$(compared "$@") || fail "$what: cannot compare"
    read -r changed predicted lost <<<"$numbers"
    echo "${3##*/}: $changed bytes changed, the map has $predicted, $lost blocks missed"
    lab_result "${what}really_changed_bytes" "$changed"
    lab_result "${what}read_bytes" "$predicted"
    missed=$((missed + lost))
    check "something changed" test "$changed" -gt 0
}

# refused STATUS TEXT COMMAND...: a command must fail so, and leave nothing.
refused() {
    local want=$1 text=$2 got=0 said before
    shift 2
    before=$(lab_resources)
    said=$("$@" 2>&1) || got=$?
    [[ $got == "$want" && $said == *"$text"* ]] || fail "$*: status $got, said: $said; want $want, $text"
    test "$before" = "$(lab_resources)" || fail "$* left something"
    echo "ok: refused: $text"
}

# sectors_read: how many sectors were read from the device below all volumes.
sectors_read() { awk '{ print $3 }' "/sys/block/$(basename "${LAB_DISKS%% *}")/stat"; }

lab_vg
lab_images_lv 512M
lvcreate -q -y -T -L 1G vg0/pool
lvcreate -q -y -T -V 512M -n thin vg0/pool
mkfs.xfs -q /dev/vg0/thin
mkdir -p /srv/thin && mount /dev/vg0/thin /srv/thin
lab_image /srv/images/vm3.img 256M
lab_image /srv/thin/vm3-data.img 256M
LAB_DOMU_OPTIONS=lab.disks=xvdb lab_domu vm3 file:/srv/images/vm3.img,xvda,w file:/srv/thin/vm3-data.img,xvdb,w
check "start" lab_start vm3
lab_wait_records vm3 20 120 xvdb
for disk in xvda xvdb; do
    lab_tell vm3 fill $disk:kept 24M
    lab_tell vm3 fill $disk:deleted 8M
done
lab_tell vm3 sync
lab_baseline

check "a snapshot of the thick origin" lvsnap create --size 192M --name s1 vg0/images
check "a snapshot of the thin origin" lvsnap create --name t1 vg0/thin
dmsetup table vg0-s1
check "its chunks have 4 KiB" test "$(dmsetup table vg0-s1 | awk '{ print $7 }')" = 8
for disk in xvda xvdb; do
    lab_tell vm3 rewrite $disk:kept 2M 4M
    lab_tell vm3 fill $disk:new 12M
    lab_tell vm3 delete $disk:deleted
    lab_tell vm3 trim $disk
done
lab_tell vm3 sync
check "a later snapshot of the thick origin" lvsnap create --size 192M --name s2 vg0/images
check "a later snapshot of the thin origin" lvsnap create --name t2 vg0/thin

read_before=$(sectors_read) began=$SECONDS
lvsnap changed --file /srv/images/vm3.img vg0/s1 >"$LAB_RESULT/thick"
cost=$((($(sectors_read) - read_before) * 512))
lab_result map_cost_bytes "$cost"
echo "it took $((SECONDS - began)) s and read $cost bytes"
lvsnap changed --file /srv/thin/vm3-data.img vg0/t1 >"$LAB_RESULT/thin"
lvsnap changed vg0/s1 >"$LAB_RESULT/volume"
lvsnap changed vg0/t1 >"$LAB_RESULT/thin-volume"
thin_delta --version
lvsnap changed --dry-run --file /srv/thin/vm3-data.img vg0/t1
lvsnap changed --json --file /srv/images/vm3.img vg0/s1 | jq -c 'del(.ranges)'
wc -l "$LAB_RESULT"/{thick,thin,volume,thin-volume}

for snapshot in s1 s2 t1 t2; do
    lvsnap mount vg0/$snapshot /mnt/$snapshot >/dev/null
done
missed=0
judged "" /mnt/s1/vm3.img /mnt/s2/vm3.img "$LAB_RESULT/thick"
check "at most 1.1 times what changed would be read" test $((predicted * 10)) -le $((changed * 11))
judged thin_ /mnt/t1/vm3-data.img /mnt/t2/vm3-data.img "$LAB_RESULT/thin"
judged volume_ /dev/vg0/s1 /dev/vg0/s2 "$LAB_RESULT/volume"
judged thin_volume_ /dev/vg0/t1 /dev/vg0/t2 "$LAB_RESULT/thin-volume"
lab_result missed_blocks "$missed"
check "no block was missed" test "$missed" = 0

refused 3 "it is not a snapshot" lvsnap changed vg0/images
refused 3 "not directly on" lvsnap changed --file /srv/thin/vm3-data.img vg0/s1
refused 3 "not directly on" lvsnap changed --file /etc/passwd vg0/s1
refused 3 "not a regular file" lvsnap changed --file /srv/images vg0/s1
refused 3 "no such file" lvsnap changed --file /srv/images/nope vg0/s1
touch /srv/images/newer
refused 1 "hint: all of /srv/images/newer is newer than snapshot vg0/s1" lvsnap changed --file /srv/images/newer vg0/s1
dmsetup message vg0-pool-tpool 0 reserve_metadata_snap
refused 3 "hint: dmsetup message /dev/mapper/vg0-pool-tpool 0 release_metadata_snap" lvsnap changed vg0/t1
dmsetup message vg0-pool-tpool 0 release_metadata_snap
check "again, now that nobody has them" lvsnap changed vg0/t1 >/dev/null
for snapshot in s1 s2 t1 t2; do
    lvsnap remove vg0/$snapshot
done

lvsnap create --quiet --size 8M --name tiny vg0/images
dd if=/dev/urandom of=/srv/images/newer bs=1M count=20 conv=fsync status=none
refused 3 "the snapshot overflowed and is lost" lvsnap changed vg0/tiny
refused 3 "the snapshot overflowed and is lost" lvsnap changed --file /srv/images/vm3.img vg0/tiny
lvsnap remove vg0/tiny
rm /srv/images/newer

check "stop" lab_shutdown vm3
lab_leftovers

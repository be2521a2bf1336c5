#!/bin/bash
# what a running DomU changed, on a thick and on a thin origin, is found without reading its images, and no block is
# missed: by lvsnap changed, and by the final pass of imgconv, which reads no more than that
# lab: suites=bookworm:full vg=4G time=3600
. /lab/lib.sh

# compared BEFORE AFTER [MAP]: what really changed from one file or device to the other, what
# the map has, and how many blocks of 4 KiB the map misses: by reading all of both.
compared() {
    python3 - "$@" <<'PYTHON'
import bisect, sys
BLOCK, MANY = 4096, 256
ranges = [tuple(map(int, line.split(" "))) for line in open((sys.argv + ["/dev/null"])[3])]
starts = [r[0] for r in ranges]
changed = missed = at = 0
with open(sys.argv[1], "rb") as before, open(sys.argv[2], "rb") as after:
    while True:
        a, b = before.read(BLOCK * MANY), after.read(BLOCK * MANY)
        assert len(a) >= len(b)  # a volume is as large as its image, rounded up
        if not b:
            break
        a = a[:len(b)]
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
    lab_result "map_${what}really_changed_bytes" "$changed"
    lab_result "map_${what}bytes" "$predicted"
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
lab_result map_missed_blocks "$missed"
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


# pass FLAG...: a pass of imgconv, which says what it did in /run/pass.
pass() {
    local got=0
    imgconv --snapshot --json --snapshot-size 192M "$@" vm3 >/run/pass 2>/run/said || got=$?
    cat /run/said
    [ "$got" = 0 ] || fail "imgconv --snapshot $*: status $got: $(cat /run/pass)"
    jq -c '.disks[] | {vdev, delta, whole, verified, bytes_read, bytes_written, bytes_zeroed}' /run/pass
}
of() { jq -r ".disks[] | select(.vdev == \"$1\").$2" /run/pass; }
image_of() { if [ "$1" = xvda ]; then echo /srv/images/vm3.img; else echo /srv/thin/vm3-data.img; fi; }
# differ DISK: how many bytes of a disk's image differ from its volume, in blocks of 4 KiB.
differ() {
    echo 3 >/proc/sys/vm/drop_caches
    compared "/dev/vg0/vm3-$1" "$(image_of "$1")" | cut -d ' ' -f 1
}
by() { check "what changed on $1 is told by: $2" test "$(of "$1" delta)" = "$2"; }
# work: what the DomU does between two passes.
work() {
    for disk in xvda xvdb; do
        lab_tell vm3 rewrite $disk:kept 2M 4M
        lab_tell vm3 fill "$disk:$1" 12M
        [ -z "${2-}" ] || lab_tell vm3 delete "$disk:$2"
        lab_tell vm3 trim $disk
    done
    lab_tell vm3 sync
}

echo "imgconv, all of the disks"
pass --whole --keep-base --to vg0
for disk in xvda xvdb; do
    check "a first copy of $disk is no delta" test "$(of $disk delta)" = null
done
check "the bases are kept, and tagged" test "$(lvs --noheadings -o lv_name -S 'lv_tags="xenlvm.base" && lv_tags="xenlvm.domain.vm3"' | xargs)" = "images-base-vm3 thin-base-vm3"
check "nothing is mounted" test -z "$(lab_new | grep mount || true)"
work first new
check "stop" lab_shutdown vm3
declare -A really
for disk in xvda xvdb; do # the volumes are as the images were
    really[$disk]=$(differ $disk)
done
pass --whole --final
by xvda "thick snapshot's exception table"
by xvdb "thin pool's metadata"
missed=0
for disk in xvda xvdb; do
    echo "$disk: ${really[$disk]} bytes really changed, imgconv read $(of $disk bytes_read) and wrote $(of $disk bytes_written)"
    missed=$((missed + $(differ $disk) / 4096))
done
lab_result really_changed_bytes "${really[xvda]}"
lab_result read_bytes "$(of xvda bytes_read)"
lab_result thin_really_changed_bytes "${really[xvdb]}"
lab_result thin_read_bytes "$(of xvdb bytes_read)"
lab_result missed_blocks "$missed"
check "volumes and images are equal" test "$missed" = 0
check "something changed" test "${really[xvda]}" -gt $((8 << 20))
check "at most 1.1 times what changed was read" test $(($(of xvda bytes_read) * 10)) -le $((really[xvda] * 11))
kept=('lv vg0/vm3-xvd?*' 'dm vg0-vm3--xvd?')
leftovers() { lab_leftovers "${kept[@]}"; [ ! -s "$LAB_RESULT/leftovers" ] || fail "left: $(cat "$LAB_RESULT/leftovers")"; }
leftovers

echo "imgconv, what is in use"
check "start" lab_start vm3
lab_wait_records vm3 $(($(lab_records vm3 xvdb) + 20)) 120 xvdb
pass --keep-base
by xvda digests
work second first
check "stop" lab_shutdown vm3
pass --final
by xvda "thick snapshot's exception table"
by xvdb "thin pool's metadata"
check "free blocks were left out" grep -q 'xvda: disk (ext4, 256 MiB): .* in use' /run/said
check "and said so in JSON" test "$(jq '[.disks[] | .whole == false and (.regions | length == 1)] | all' /run/pass)" = true
leftovers
mkdir -p /mnt/image /mnt/volume
for disk in xvda xvdb; do
    check "the file system of $disk is clean" e2fsck -fn "/dev/vg0/vm3-$disk"
    mount -o ro,loop "$(image_of $disk)" /mnt/image && mount -o ro "/dev/vg0/vm3-$disk" /mnt/volume
    check "each file of $disk is the same" diff -r --no-dereference /mnt/image /mnt/volume
    umount /mnt/image /mnt/volume
done
rmdir /mnt/image /mnt/volume

echo "two passes in one run"
pass --whole --passes 2
check "the second is told what changed" test "$(of xvda delta)" = "thick snapshot's exception table"
check "both are told of" test "$(jq '.passes | length' /run/pass)" = 2
leftovers

echo "bases that are of no use"
pass --whole --keep-base # of the disks of a domain that does not run
imgconv --snapshot --drop-base vm3
leftovers
pass --whole --keep-base
dd if=/dev/urandom of=/dev/vg0/vm3-xvda bs=1M count=1 seek=100 conv=fsync status=none
pass --whole --final
check "a volume that somebody wrote to is read" grep -q 'xvda: cannot tell what changed by the base vg0/images-base-vm3: somebody may have written to vg0/vm3-xvda since' /run/said
by xvdb "thin pool's metadata"
check "it is made equal" test "$(differ xvda)" = 0
leftovers

pass --whole --keep-base --snapshot-size 8M
dd if=/dev/urandom of=/srv/images/newer bs=1M count=20 conv=fsync status=none
dd if=/dev/urandom of=/srv/images/vm3.img bs=1M count=1 seek=255 conv=notrunc,fsync status=none
pass --whole --final
check "a base that overflowed is told" grep -q 'images-base-vm3: the snapshot overflowed and is lost' /run/said
by xvda digests
check "and nothing is missed" test "$(differ xvda)" = 0
leftovers

pass --whole --keep-base
lvcreate -q -y -W n -n filler -l 100%FREE vg0
pass --whole --final
check "a base that leaves no room is removed" grep -q 'removing the base of the last pass' /run/said
check "and nothing is missed" test "$(differ xvda)" = 0
lvremove -q -y vg0/filler
leftovers

pass --whole --keep-base
lvremove -q -y vg0/images-base-vm3
pass --whole --final
check "a base that is gone is told" grep -q 'xvda: the base of its last copy is gone' /run/said
leftovers

lab_judge vm3
lab_leftovers "${kept[@]}"

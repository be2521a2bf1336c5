#!/bin/bash
# what goes wrong while imgconv works: a second run, a lost snapshot, a domain that somebody starts
# lab: vg=6G time=900
. /lab/lib.sh

lab_vg
lab_images_lv 1G
lab_image /srv/images/vm3.img 128M
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 64M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lvcreate -q -y -W n -n stale -L 256M vg0 && dd if=/dev/urandom of=/dev/vg0/stale bs=1M count=8 status=none
lab_baseline

echo "a qcow2 image"
qemu-img convert -O qcow2 /srv/images/vm3.img /srv/images/q.qcow2
lab_domu q /srv/images/q.qcow2,qcow2,xvda,w
check "is converted" imgconv --snapshot --to vg0 q
check "to the same bytes" cmp -n "$(stat -c %s /srv/images/vm3.img)" /srv/images/vm3.img /dev/vg0/q-xvda
lvremove -q -y vg0/q-xvda
check "nothing left" test -z "$(lab_new)"

echo "a dry run"
check "prints what a run would do" imgconv --snapshot --to vg0 --dry-run vm3
check "and changes nothing" test -z "$(lab_new)"

echo "two runs at once"
imgconv --snapshot --to vg0 --bwlimit 4M vm3 >/dev/null 2>&1 &
first=$!
wait_for 60 test -s /var/lib/xenlvm/vm3/journal.jsonl
status=0
imgconv --snapshot --to vg0 vm3 >/run/stdout 2>/run/stderr || status=$?
check "the second is refused" test "$status" = 3
check "and says who has it" grep -q "another run has it (imgconv, process $first)" /run/stderr
kill "$first"
wait "$first" || true
check "the first is undone" test -z "$(lab_new)"

echo "stale bytes of a former owner"
check "over old data" imgconv --snapshot --overwrite --to xvda=vg0/stale vm3
check "identical" cmp -n "$(stat -c %s /srv/images/vm3.img)" /srv/images/vm3.img /dev/vg0/stale
check "zero behind the image" cmp -n $((128 << 20)) -i $((128 << 20)):0 /dev/vg0/stale /dev/zero

echo "a snapshot that overflows during the copy"
(sleep 6 && dd if=/dev/urandom of=/srv/images/other bs=1M count=60 conv=fsync status=none) &
status=0
lvremove -q -y vg0/stale
imgconv --snapshot --to xvda=vg0/lost --snapshot-size 16M --bwlimit 2M vm3 >/run/stdout 2>/run/stderr || status=$?
cat /run/stderr
check "is a failure" test "$status" = 1
check "that says so" grep -q 'the snapshot overflowed and is lost' /run/stderr
check "and what would have been enough" grep -q 'hint: --snapshot-size .* would have been enough' /run/stderr
wait

echo "somebody starts the domain during the final pass"
status=0
lvremove -q -y vg0/lost || true
imgconv --snapshot --to xvda=vg0/rival vm3 >/dev/null 2>&1
sync
imgconv --snapshot --final --bwlimit 2M vm3 >/run/stdout 2>/run/stderr &
final=$!
wait_for 60 grep -q 'look at /srv/images/vm3.img in the snapshot' /run/stderr
check "vm3 is started" lab_start vm3
lab_wait_records vm3 1 120
wait "$final" || status=$?
cat /run/stderr
check "the final pass is a failure" test "$status" = 1
check "that says so" grep -q 'its domain started, during the final pass' /run/stderr
check "its volume keeps the tag" test "$(lvs --noheadings -o lv_tags vg0/rival | grep -c incomplete)" = 1
check "and is not applied" test "$(domuswitch apply vm3 xvda=/dev/vg0/rival >/dev/null 2>&1; echo $?)" = 3
check "vm3 stops" lab_shutdown vm3
lvremove -q -y vg0/rival

lab_leftovers

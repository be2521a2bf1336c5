#!/bin/bash
# what goes wrong while imgconv works: a second run, a lost snapshot, a full pool, a domain that somebody starts
# lab: vg=6G time=1200
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
check "is converted" imgconv --snapshot --whole --to vg0 q
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
check "over old data" imgconv --snapshot --whole --overwrite --to xvda=vg0/stale vm3
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

echo "a thin pool that fills during the copy"
lvcreate -q -y -T -L 320M vg0/pool
lvcreate -q -y -T -V 256M -n thin vg0/pool
mkfs.ext4 -q /dev/vg0/thin && mkdir /srv/thin && mount /dev/vg0/thin /srv/thin
head -c 32M /dev/urandom >/srv/thin/t.img
dd if=/dev/urandom of=/srv/thin/other bs=1M count=150 conv=fsync status=none
lab_domu t file:/srv/thin/t.img,xvda,w
lab_baseline
fuller() { awk "BEGIN { exit !($(lvs --noheadings -o data_percent vg0/pool) $1) }"; }
status=0
imgconv --snapshot --to vg0 --snapshot-size 200M t >/run/stdout 2>/run/stderr || status=$?
cat /run/stderr
check "without room it is refused" test "$status" = 3
check "that says how full the pool is" grep -q 'to thin pool vg0/pool: it has room for .* (data .* %, metadata .* % in use)' /run/stderr
check "nothing left" test -z "$(lab_new)"

check "create" lvsnap create --name w vg0/thin
lvsnap watch vg0/w >/run/watch 2>&1 &
watch=$!
wait_for 20 grep -qP '^vg0/w\t[0-9]+\t335544320\t[0-9.]+%$' /run/watch || fail "the watch does not show the pool: $(cat /run/watch)"
check "remove" lvsnap remove vg0/w
check "it ends the watch" wait "$watch"

imgconv --snapshot --to vg0 --bwlimit 256K t >/run/stdout 2>/run/stderr &
copy=$!
wait_for 60 grep -q 'look at /srv/thin/t.img in the snapshot' /run/stderr
for ((at = 0; at < 150; at += 6)); do
    ! fuller '> 95' || break
    dd if=/dev/urandom of=/srv/thin/other bs=1M count=6 seek="$at" conv=notrunc,fsync status=none
done
status=0
wait "$copy" || status=$?
cat /run/stderr
check "the copy is a failure" test "$status" = 1
check "that says so" grep -q 'the thin pool is nearly full: vg0/pool: data 9.* % in use' /run/stderr
check "and what makes room" grep -q 'hint: lvextend --size +.* vg0/pool' /run/stderr
check "nothing left" test -z "$(lab_new)"
check "there is room again" fuller '< 95'
check "the pool was never full" test "$(dmsetup status vg0-pool-tpool | cut -d ' ' -f 8)" = rw
umount /srv/thin && rmdir /srv/thin
lvremove -q -y vg0/pool
lab_baseline

echo "files asked for, and a disk without any"
truncate -s 16M /srv/images/swap.img && mkswap -q /srv/images/swap.img
lab_domu s file:/srv/images/swap.img,xvda,w
lab_domu m file:/srv/images/vm3.img,xvda,w file:/srv/images/swap.img,xvdb,w
status=0
imgconv --snapshot --method files --to vg0 s >/run/stdout 2>/run/stderr || status=$?
check "no disk can go so: refused" test "$status" = 3
check "one can" imgconv --snapshot --method files --to vg0 m
check "each in its way" test "$(jq -r 'select(.kind == "copied") | .data.vdev + " " + .data.method' /var/lib/xenlvm/m/journal.jsonl | xargs)" = "xvda files xvdb blocks"
check "identical" cmp -n "$((16 << 20))" /srv/images/swap.img /dev/vg0/m-xvdb
lvremove -q -y vg0/m-xvda vg0/m-xvdb

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

#!/bin/bash
# a DomU on an image with a partition table moves, block by block, from a thin volume
# lab: vg=8G time=900
. /lab/lib.sh

lab_vg
lvcreate -q -y -T -L 2G vg0/pool
lvcreate -q -y -T -V 2G -n images vg0/pool
mkfs.ext4 -q /dev/vg0/images
mkdir -p /srv/images && mount /dev/vg0/images /srv/images

truncate -s 600M /srv/images/vm3.img
sfdisk -q /srv/images/vm3.img <<PARTITIONS
label: dos
2048,1000000,L,*
,,S
PARTITIONS
loop=$(losetup --find --show --offset $((2048 * 512)) --sizelimit $((1000000 * 512)) /srv/images/vm3.img)
mkfs.ext4 -q -L root "$loop"
losetup -d "$loop"

export LAB_ROOT_DISK=xvda1
LAB_DOMU_OPTIONS='lab.root=/dev/xvda1' lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_baseline
check "start" lab_start vm3
lab_wait_records vm3 30 180 xvda1

domid=$(xl domid vm3) status=0
image-to-lv --max-interruption 1 --to vg0 vm3 2>/run/said || status=$?
cat /run/said
check "a second is not enough" test "$status" = 1
check "it says what is" grep -q 'cannot keep vm3 down for less than 1 s: .* are expected' /run/said
check "vm3 was not interrupted" test "$(xl domid vm3)" = "$domid"
lab_leftovers 'lv vg0/vm3-xvda *' 'dm vg0-vm3--xvda' 'domain vm3' 'loop /srv/images/vm3.img'

lab_move vm3 --max-interruption 600
last() { grep "\"kind\":\"$1\"" /var/lib/xenlvm/vm3/journal.jsonl | sed -n "${2}p" | jq ".data.$3"; }
lab_result expected_s "$(last started 1 expected_down_seconds)"
lab_result down_s "$(last started 1 down_seconds)"
check "expected and seen were written down" jq -en "$(last started 1 expected_down_seconds) > 1 and $(last started 1 down_seconds) > 1"
check "it went by blocks" grep -q '"method":"blocks"' /var/lib/xenlvm/vm3/journal.jsonl
check "the volume is identical to the image but for what the guest wrote since" \
    cmp -n 1048576 /srv/images/vm3.img /dev/vg0/vm3-xvda
check "the partition table is there" test "$(sfdisk -d /dev/vg0/vm3-xvda | grep -c ' type=')" = 2
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'

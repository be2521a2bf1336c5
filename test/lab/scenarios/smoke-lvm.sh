#!/bin/bash
# the plain kernel boots, and LVM, snapshots and md work
# lab: xen=no vg=2G,1G time=120
. /lab/lib.sh

lab_vg
lab_vg vg1 2
lab_images_lv 1G xfs
lab_baseline

check "a snapshot is made" lvcreate -q -s -n snap -L 128M vg0/images
check "and removed" lvremove -q -y vg0/snap

truncate -s 64M /srv/images/disk.img
loop=$(losetup --find --show /srv/images/disk.img)
check "a degraded array without superblock is built" \
    mdadm --build /dev/md/smoke --level=1 --raid-devices=2 "$loop" missing
check "the leftovers are seen while they are there" \
    test "$(lab_new | cut -d' ' -f1 | xargs)" = "loop md"
check "it stops" mdadm --stop /dev/md/smoke
check "its loop is detached" losetup -d "$loop"
lab_leftovers

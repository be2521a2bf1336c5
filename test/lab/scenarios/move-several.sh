#!/bin/bash
# a DomU with two disks on two file systems, swap and a cdrom moves in one go
# lab: suites=bookworm:full,trixie:full vg=8G time=900
. /lab/lib.sh

lab_vg
lab_images_lv 1500M
lvcreate -q -y -n data -L 1G vg0
mkfs.xfs -q /dev/vg0/data
mkdir -p "/srv/it's data" && mount /dev/vg0/data "/srv/it's data"

lab_image /srv/images/root.img 400M
truncate -s 64M /srv/images/swap.img && mkswap -q /srv/images/swap.img
lab_image "/srv/it's data/data.img" 300M
truncate -s 4M /srv/images/cd.iso

export LAB_ROOT_DISK=xvda1
LAB_DOMU_OPTIONS='lab.root=/dev/xvda1 lab.swap=xvda2 lab.disks=xvdb' \
    lab_domu vm3 file:/srv/images/root.img,xvda1,w file:/srv/images/swap.img,xvda2,w file:/srv/images/cd.iso,xvdc:cdrom,r
# A quote in a path needs the other kind of quotes around the string.
sed -i "s|^disk = \[|&\n    \"file:/srv/it's data/data.img,xvdb,w\", # the data|" /etc/xen/vm3.cfg
lab_baseline
check "start" lab_start vm3
lab_wait_records vm3 30 180 xvda1
lab_wait_records vm3 30 180 xvdb
cp /etc/xen/vm3.cfg /run/before.cfg
lab_move vm3 --to vg0 --to xvdb=vg0/big
domuswitch show vm3
check "three disks are on volumes" test "$(domuswitch show vm3 | grep -c /dev/vg0/)" = 3
check "only their strings changed" test "$(diff /run/before.cfg /etc/xen/vm3.cfg | grep -c '^>')" = 3
check "the comment is there" grep -q '# the data' /etc/xen/vm3.cfg
check "a second run has nothing to do" test "$(image-to-lv vm3 2>&1 | grep -c 'nothing to do')" = 1
lab_leftovers 'lv vg0/vm3-xvda[12] xenlvm.domain.vm3' 'lv vg0/big xenlvm.domain.vm3' 'dm vg0-vm3--xvda[12]' 'dm vg0-big'

#!/bin/bash
# mdmirror --presync: md recovers no more than what the DomU wrote while the rest was copied
# lab: suites=bookworm:full,trixie:full vg=4G time=900
. /lab/lib.sh

# sectors NAME FIELD: of a device-mapper device: 3 were read, 7 were written.
sectors() { awk -v f="$2" '{ print $f }' "/sys/block/$(basename "$(readlink -f "/dev/mapper/$1")")/stat"; }

lab_vg
lab_images_lv 1536M
lab_image /srv/images/vm3.img 1G
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 256M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
LAB_RATE=50 lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_baseline

check "build" mdmirror build vm3
sed 's|file:/srv/images/vm3.img|phy:/dev/mapper/xenlvm-vm3-xvda|' /etc/xen/vm3.cfg >/run/vm3.cfg
xl create -q /run/vm3.cfg
lab_wait_records vm3 50 120
read_before=$(sectors xenlvm-vm3-xvda-source 3) written_before=$(sectors xenlvm-vm3-xvda 7)
check "add, copying first" mdmirror add --to vg0 --presync --bwlimit 16M vm3
check "wait" mdmirror wait vm3
recovered=$((($(sectors xenlvm-vm3-xvda-source 3) - read_before) * 512))
written=$((($(sectors xenlvm-vm3-xvda 7) - written_before) * 512))
lab_result guest_written_bytes "$written"
lab_result recovered_bytes "$recovered"
echo "the DomU wrote $(numfmt --to=iec "$written"), md recovered $(numfmt --to=iec "$recovered") of 1G"
check "recovered at most 1.5 times of what was written" test $((recovered * 2)) -le $((written * 3))
check "and something" test "$recovered" -gt 0
check "image and volume are equal" mdmirror verify vm3
check "stop" lab_shutdown vm3
# What the host cached of the volume before the mirror wrote to it is old.
blockdev --flushbufs /dev/vg0/vm3-xvda
check "byte for byte" cmp -n "$(stat -c %s /srv/images/vm3.img)" /srv/images/vm3.img /dev/vg0/vm3-xvda
check "finish" mdmirror finish vm3
xl create -q /etc/xen/vm3.cfg
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 2 || fail "it does not verify its records"
check "stop" lab_shutdown vm3
lab_judge vm3
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'

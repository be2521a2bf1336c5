#!/bin/bash
# lib/qmp moves a running guest from a qcow2 image onto a volume, with no pause
# lab: suites=bookworm,trixie:full vg=2G time=600 gotest=./lib/qmp
. /lab/lib.sh

lab_vg
lab_images_lv 1G
# No whole number of extents: the volume is larger than the disk.
lab_image /srv/images/raw.img 130M
qemu-img convert -f raw -O qcow2 /srv/images/raw.img /srv/images/q.qcow2
rm /srv/images/raw.img
lab_domu q /srv/images/q.qcow2,qcow2,xvda,w
lvcreate -q -y -W n -n q -L 132M vg0
dd if=/dev/urandom of=/dev/vg0/q bs=1M oflag=direct status=none || true # until it is full
tail=$(dd if=/dev/vg0/q bs=1M skip=130 iflag=direct status=none | sha256sum)

check "the guest starts" lab_start q
lab_wait_records q 50 120
lab_baseline
XENLVM_QMP_SOCKET=/var/run/xen/qmp-libxl-$(xl domid q)
export XENLVM_QMP_SOCKET XENLVM_QMP_DEVICE=/dev/vg0/q
# The package's other tests bring a QEMU of their own, which does without Xen.
lab_gotest ./lib/qmp -test.run TestLab >/run/qmp.log 2>&1 || fail "$(cat /run/qmp.log; tail -n 20 /var/log/xen/qemu-dm-q.log)"
cat /run/qmp.log
check "nothing was skipped" test "$(grep -c -- '--- SKIP' /run/qmp.log || true)" = 0
check "nobody has the image open" umount /srv/images
lab_wait_records q $(($(lab_records q) + 50)) 120
lab_tell q verify
lab_intact q || fail "$(lab_console q | grep '^GUEST' | tail -n 5)"
sed -i 's|/srv/images/q.qcow2,qcow2,|phy:/dev/vg0/q,|' /etc/xen/q.cfg
check "the guest shuts down" lab_shutdown q
check "its file system is clean" e2fsck -fn /dev/vg0/q
check "it starts on the volume" lab_start q
wait_for 120 lab_said q '^GUEST verified disk=xvda ' 2 || fail "q does not verify its records"
check "it shuts down" lab_shutdown q
lab_judge q
check "the end of the volume is untouched" test "$(dd if=/dev/vg0/q bs=1M skip=130 iflag=direct status=none | sha256sum)" = "$tail"
lab_leftovers

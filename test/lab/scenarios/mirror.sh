#!/bin/bash
# mdmirror: a DomU writes to its image and to a volume until they are equal, and goes on on the volume
# lab: vg=4G time=1200
. /lab/lib.sh

lab_vg
lab_images_lv 1G
lab_image /srv/images/vm3.img 256M
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 64M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_start vm3
lab_wait_records vm3 30 120
lab_baseline

# status WANT: the exit status of mdmirror status.
status() {
    local got=0
    mdmirror status vm3 >/run/status 2>/run/status.err || got=$?
    test "$got" = "$1" || { cat /run/status /run/status.err; return 1; }
}

check "nothing is mirrored" status 0
check "build" mdmirror build vm3
check "built: no second member" status 11
check "and again" mdmirror build vm3
! mdmirror add --to vg0 vm3 || fail "added while the domain writes beside the mirror"
sed 's|file:/srv/images/vm3.img|phy:/dev/mapper/xenlvm-vm3-xvda|' /etc/xen/vm3.cfg >/run/vm3.cfg
check "stop" lab_shutdown vm3
xl create -q /run/vm3.cfg
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 2 || fail "it does not verify its records"
check "abort" mdmirror abort vm3
if said=$(mdmirror build vm3 2>&1); then fail "built beside what abort left"; fi
[[ $said == *"domuswitch stop vm3 && domuswitch start vm3"* ]] || fail "no way on: $said"
lab_wait_records vm3 $(($(lab_records vm3) + 20)) 60
dmsetup info xenlvm-vm3-xvda | grep -q DEFERRED || fail "its device would stay"
check "stop" lab_shutdown vm3
test -z "$(lab_new)" || fail "left after abort: $(lab_new)"

check "build" mdmirror build vm3
xl create -q /run/vm3.cfg
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 3 || fail "it does not verify its records"
check "add" mdmirror add --to vg0 --bwlimit 16M vm3
check "recovering" status 10
check "wait" mdmirror wait vm3
check "synced" status 0
mdmirror verify --bwlimit 4M vm3 &
pid=$!
wait_for 120 grep -q '^[1-9]' /sys/block/md*/md/sync_completed || fail "it does not compare"
kill -TERM $pid
! wait $pid || fail "an interrupted verify says that they are equal"
check "md would go on from there" grep -qv '^0$' /sys/block/md*/md/sync_min
# The guest never reads the first sector.
dd if=/dev/vg0/vm3-xvda of=/run/front count=1 iflag=direct status=none
head -c 512 /dev/urandom | dd of=/dev/vg0/vm3-xvda iflag=fullblock oflag=direct conv=notrunc status=none
got=0
mdmirror verify vm3 || got=$?
check "what differs before that is found" test $got = 5
dd if=/run/front of=/dev/vg0/vm3-xvda oflag=direct conv=notrunc status=none
mdmirror verify --bwlimit 1M vm3 &
pid=$!
wait_for 120 grep -q '^check' /sys/block/md*/md/sync_action || fail "it does not compare"
kill -KILL $pid
wait $pid || true
check "verify" mdmirror verify vm3
check "no configuration may name it yet" test "$(lvs --noheadings -o lv_tags vg0/vm3-xvda | grep -c incomplete)" = 1
check "stop" lab_shutdown vm3
got=0
domuswitch start vm3 2>/run/said || got=$?
cat /run/said
check "it is not started beside the mirror" test "$got $(grep -c 'is mirrored (synced)' /run/said)" = "3 1"
check "but on it" domuswitch restart vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 4 || fail "it does not verify its records"
# That it was compared says nothing of what was written beside it since.
head -c 512 /dev/urandom | dd of=/dev/vg0/vm3-xvda iflag=fullblock oflag=direct conv=notrunc status=none
got=0
mdmirror finish vm3 || got=$?
check "it is compared again after a start" test $got = 5
dd if=/run/front of=/dev/vg0/vm3-xvda oflag=direct conv=notrunc status=none
check "finish" mdmirror finish vm3
grep -q '/dev/vg0/vm3-xvda' /etc/xen/vm3.cfg || fail "the configuration does not name the volume"
lab_wait_records vm3 $(($(lab_records vm3) + 20)) 60
xl reboot vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 5 || fail "it does not verify its records"
check "stop" lab_shutdown vm3
lab_judge vm3
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'

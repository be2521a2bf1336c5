#!/bin/bash
# a DomU on an image file writes records, is shut down, started again and lost nothing
# lab: suites=bookworm:full vg=2G time=600
. /lab/lib.sh

lab_vg
lab_images_lv 1G
lab_image /srv/images/vm3.img 256M
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_baseline

check "the guest starts" lab_start vm3
lab_wait_records vm3 100 120
check "its disk is a loop of the image" test "$(losetup --list --noheadings --output BACK-FILE)" = /srv/images/vm3.img
check "it shuts down" lab_shutdown vm3
written=$(lab_records vm3)
check "its file system is clean" e2fsck -fn /srv/images/vm3.img

check "it starts again" lab_start vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 2 || fail "it does not verify its records"
verified=$(lab_console vm3 | sed -n 's/^GUEST verified disk=xvda .*last=\([0-9]*\).*/\1/p' | tail -n 1)
check "it finds the $written records it wrote" test "$verified" -ge "$written"
lab_wait_records vm3 "$((verified + 50))" 120
check "it reboots" xl reboot vm3
wait_for 120 lab_said vm3 '^GUEST boot 3 ' || fail "it does not come back from its reboot"
check "it shuts down" lab_shutdown vm3
check "nothing was lost" lab_intact vm3
lab_result records "$(lab_records vm3)"
lab_leftovers

#!/bin/bash
# the guest and the judge find what is lost: a crash loses nothing, an image that was put back does
# lab: vg=2G time=600
. /lab/lib.sh

log=/var/log/xen/console/guest-vm3.log

lab_vg
lab_images_lv 1G
lab_image /srv/images/vm3.img 256M
LAB_RATE=0 LAB_DOMU_OPTIONS='lab.files=first:3M' lab_domu vm3 file:/srv/images/vm3.img,xvda,w

lab_baseline
check "the guest starts" lab_start vm3
judge --wait-records 300 --timeout 120s "$log" || fail "no records"
lab_tell vm3 fill a 20M
lab_tell vm3 rewrite a 100000 300000
lab_tell vm3 delete first
lab_tell vm3 trim
lab_tell vm3 verify
check "the file is gone" test "$(xenstore-read /lab/vm3/command)" = ""
xenstore-read /lab/vm3/result
acked=$(xenstore-read /lab/vm3/acked)
check "xenstore has what was acknowledged" test "$acked" -gt 300
judge "$log" || fail "a loss where there is none"

echo "crash"
xl destroy vm3
cp --sparse=always /srv/images/vm3.img /srv/images/old.img
check "it starts after a crash" lab_start vm3
judge --wait-records 300 --timeout 120s "$log" || fail "no records"
judge "$log" || fail "a crash lost something"
xl destroy vm3

echo "an old image"
mv /srv/images/old.img /srv/images/vm3.img
check "it starts on an old image" lab_start vm3
wait_for 120 lab_said vm3 '^GUEST LOST' || fail "the guest does not see that its image is old"
if judge "$log"; then fail "the judge does not see that the image is old"; fi
check "a guest that lost something still shuts down" lab_shutdown vm3
lab_leftovers

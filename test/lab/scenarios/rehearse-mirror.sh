#!/bin/bash
# domuswitch rehearse: of a domain that runs on a mirror, whose volume is below the array
# lab: suites=bookworm:full vg=2G time=1200
. /lab/lib.sh

up='console:^GUEST verified disk=xvda'

lab_vg
lab_images_lv 256M
lab_image /srv/images/vm4.img 64M
lab_domu vm4 file:/srv/images/vm4.img,xvda,w
lab_baseline
check "build" mdmirror build vm4
sed 's|file:/srv/images/vm4.img|phy:/dev/mapper/xenlvm-vm4-xvda|' /etc/xen/vm4.cfg >/run/vm4.cfg
xl create -q /run/vm4.cfg
lab_wait_records vm4 20 120
check "add" mdmirror add --to vg0 vm4
check "wait" mdmirror wait vm4
lab_new >/run/before
check "the copy comes up" domuswitch rehearse --quiet --until "$up" vm4
check "nothing is left" test "$(lab_new)" = "$(cat /run/before)"
check "the mirror is in sync" mdmirror status vm4
lab_wait_records vm4 $(($(lab_records vm4) + 20)) 120
check "both members are equal" mdmirror verify vm4
check "stop" lab_shutdown vm4
check "the mirror ends" mdmirror abort vm4
lab_judge vm4
lab_leftovers 'lv vg0/vm4-xvda *' 'dm vg0-vm4--xvda'

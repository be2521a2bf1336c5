#!/bin/bash
# the lab's own: a host that goes down loses what was not synced, and the judge sees a record that was lost by it
# lab: suites=bookworm:full vg=2G boots=2 time=600
. /lab/lib.sh

verified() { wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' "$1" || fail "it does not verify its records"; }

if ((LAB_BOOT == 1)); then
    lab_vg
    lab_images_lv 512M
    lab_image /srv/images/vm3.img 64M
    lab_domu vm3 file:/srv/images/vm3.img,xvda,w
    sync
    lab_start vm3
    lab_wait_records vm3 30 120
    xl pause vm3
    cp /srv/images/vm3.img /srv/images/old.img
    sync /srv/images/old.img
    xl unpause vm3
    lab_wait_records vm3 $(($(lab_records vm3) + 30)) 60
    echo synced >/srv/images/synced
    sync /srv/images/synced
    echo unsynced >/srv/images/unsynced
    lab_result known "$(lab_records vm3)"
    lab_crash
fi
lab_recover vm3
lab_baseline
known=$(lab_records vm3)
check "the console of before is there" test "$known" -ge "$(awk '$1 == "known" { print $2 }' "$LAB_RESULT/fields")"
check "the domain is not" lab_gone vm3
check "what was synced is there" grep -q synced /srv/images/synced
check "what was not is lost" test ! -s /srv/images/unsynced
check "the guest is told what it acknowledged" test "$(xenstore-read /lab/vm3/acked)" = "$known"
lab_start vm3
verified 2
lab_shutdown vm3
lab_survived
lab_points vm3

cp /srv/images/old.img /srv/images/vm3.img
xenstore-write /lab/vm3/acked 0 # only the console knows
lab_start vm3
verified 3
lab_shutdown vm3
! judge /var/log/xen/console/guest-vm3.log >/run/judge || fail "the judge does not see that records are lost"
check "the judge counts what is lost" test "$(jq .lost /run/judge)" -ge 20
lab_leftovers

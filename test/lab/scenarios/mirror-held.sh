#!/bin/bash
# mdmirror is killed while it holds back the DomU's I/O, to switch its disk: nothing hangs, and the DomU goes on
# lab: suites=bookworm:full vg=2G time=1500
. /lab/lib.sh

lab_vg
lab_images_lv 256M
lab_image /srv/images/vm3.img 48M
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_baseline

starts=0
# verified: the DomU has started once more, and found its records.
verified() {
    starts=$((starts + 1))
    wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' "$starts" || fail "it does not verify its records"
}
goes_on() { check "the DomU goes on" lab_wait_records vm3 $(($(lab_records vm3) + 20)) 90; }
held() { [ "$(dmsetup info -c --noheadings -o suspended xenlvm-vm3-xvda)" = Suspended ]; }

# killed_holding VERB: mdmirror is killed before each change of one run after the other, until
# the DomU's I/O is held back.
killed_holding() {
    local n status
    for ((n = 1; ; n++)); do
        status=0
        { XENLVM_KILL_COMMAND=$n mdmirror "$1" vm3 >/run/out 2>&1; } 2>/dev/null || status=$?
        [ "$status" = 137 ] || fail "$1 was never killed while it held back I/O: status $status: $(cat /run/out)"
        lab_survived
        ! held || break
    done
    echo "$1: held back before change $n"
    status=0
    timeout 60 mdmirror status vm3 >/run/status 2>&1 || status=$?
    cat /run/status
    check "status does not hang" test "$status" = 1
    check "and says it" grep -q 'is held back: it is being switched, or a run was killed' /run/status
}

check "build" mdmirror build vm3
sed 's|file:/srv/images/vm3.img|phy:/dev/mapper/xenlvm-vm3-xvda|' /etc/xen/vm3.cfg >/run/vm3.cfg
xl create -q /run/vm3.cfg
verified
check "add" mdmirror add --to vg0 vm3
check "wait" mdmirror wait vm3

killed_holding abort
check "a dry run says what comes first" test "$(mdmirror abort --dry-run vm3 | head -n 2 | xargs)" = "dmsetup clear xenlvm-vm3-xvda dmsetup resume xenlvm-vm3-xvda"
check "which changes nothing" held
check "abort goes on" mdmirror abort vm3
goes_on
check "nothing is mirrored" mdmirror status vm3
check "stop" lab_shutdown vm3
[ ! -e /dev/vg0/vm3-xvda ] || lvremove -q -y vg0/vm3-xvda
check "nothing left" test -z "$(lab_new)"

check "build" mdmirror build vm3
xl create -q /run/vm3.cfg
verified
check "add" mdmirror add --to vg0 vm3
check "wait" mdmirror wait vm3
killed_holding finish
status=0
mdmirror abort vm3 >/run/out 2>&1 || status=$?
cat /run/out
check "abort, which comes too late" test "$status" = 1 -o "$status" = 3
check "lets it go on all the same" test "$(held && echo held)" = ''
goes_on
killed_holding finish
check "finish goes on" mdmirror finish vm3
goes_on
check "stop" lab_shutdown vm3
check "start" xl create -q /etc/xen/vm3.cfg
verified
check "stop" lab_shutdown vm3
lab_points vm3
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'

#!/bin/bash
# the host goes down while a DomU is mirrored, twice, and after finish: nothing that was acknowledged is lost
# lab: vg=3G boots=4 time=1500
. /lab/lib.sh

mirror=/dev/mapper/xenlvm-vm3-xvda

# status WANT: the exit status of mdmirror status.
status() {
    local got=0
    mdmirror status vm3 >/run/status 2>/run/status.err || got=$?
    test "$got" = "$1" || { cat /run/status /run/status.err; return 1; }
}

# refuses COMMAND...: a command that must be refused, because the copy is not complete.
refuses() {
    local got=0
    "$@" >/run/said 2>&1 || got=$?
    cat /run/said
    test "$got $(grep -c 'the copy on it is not complete' /run/said)" = "3 1"
}

# starts COMMAND...: a command that starts the DomU, which finds all that it was ever told is written.
starts() {
    local before
    before=$(lab_console vm3 | grep -c '^GUEST verified disk=xvda ' || true)
    "$@"
    wait_for 180 lab_said vm3 '^GUEST verified disk=xvda ' $((before + 1)) || fail "it does not verify its records: $(lab_console vm3 | tail -n 5)"
}
goes_on() { lab_wait_records vm3 $(($(lab_records vm3) + 50)) 120; }

# crash_filling: the DomU gets onto a mirror, and the host goes down while the volume is being filled.
crash_filling() {
    check "build" mdmirror build vm3
    check "put it onto the mirror" starts domuswitch restart vm3 "xvda=$mirror"
    check "add, so slowly that it takes a minute" mdmirror add --to vg0 --bwlimit 4M vm3
    check "it goes on" goes_on
    check "while the volume is being filled" status 10
    cat /run/status
    lab_crash
}

# crashed: after a boot in which the host went down while the volume was being filled.
crashed() {
    check "status tells of it" status 11
    cat /run/status /run/status.err
    grep -q 'was mirrored when the host went down. Its image /srv/images/vm3.img has everything' /run/status.err || fail "it does not explain"
    check "the configuration is as it was" cmp "$LAB_RESULT/image.cfg" /etc/xen/vm3.cfg
    check "the volume has not everything" test "$(cmp -n $((256 << 20)) /srv/images/vm3.img /dev/vg0/vm3-xvda >/dev/null && echo equal)" = ''
    check "and is marked" test "$(lvs --noheadings -o lv_tags vg0/vm3-xvda | grep -c xenlvm.incomplete)" = 1
    check "so nothing is put onto it" refuses domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda
    sed 's|file:/srv/images/vm3.img|phy:/dev/vg0/vm3-xvda|' /etc/xen/vm3.cfg >/run/volume.cfg
    check "nor started on it" refuses domuswitch start --config /run/volume.cfg vm3
    # The journal first, as its own kernel would; nothing may be left that preening does
    # not mend. The image itself is left to the guest.
    cp --sparse=always /srv/images/vm3.img /srv/images/looked-at
    e2fsck -fp /srv/images/looked-at >/run/said || (($? == 1)) || fail "its file system: $(cat /run/said)"
    check "its file system is whole" e2fsck -fn /srv/images/looked-at
    rm /srv/images/looked-at
}

if ((LAB_BOOT > 1)); then
    lab_recover vm3
    echo "boot $LAB_BOOT: $(lab_records vm3) records are known to be acknowledged"
    lab_baseline
fi
case $LAB_BOOT in
1)
    lab_vg
    lab_images_lv 1G
    lab_image /srv/images/vm3.img 256M
    mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
    head -c 64M /dev/urandom >/mnt/image/data
    umount /mnt/image && rmdir /mnt/image
    LAB_RATE=20 lab_domu vm3 file:/srv/images/vm3.img,xvda,w
    cp /etc/xen/vm3.cfg "$LAB_RESULT/image.cfg"
    sync # all this was there long before
    check "start" starts lab_start vm3
    lab_wait_records vm3 30 120
    crash_filling
    ;;
2)
    crashed
    check "abort" mdmirror abort vm3
    check "nothing is known of a mirror any more" status 0
    check "nor left of it" test -z "$(lab_new)"
    check "start, from its own configuration" starts domuswitch start vm3
    lab_judge vm3
    check "it goes on" goes_on
    crash_filling
    ;;
3)
    crashed
    check "start, from its own configuration" starts lab_start vm3
    lab_judge vm3
    check "the same once more, and to the end" image-to-lv --plan mirror --to vg0 vm3
    check "the configuration names the volume" grep -q phy:/dev/vg0/vm3-xvda, /etc/xen/vm3.cfg
    check "it goes on" goes_on
    lab_crash
    ;;
4)
    check "nothing is mirrored" status 0
    check "the configuration names the volume" grep -q phy:/dev/vg0/vm3-xvda, /etc/xen/vm3.cfg
    check "the volume is not marked" test "$(lvs --noheadings -o lv_tags vg0/vm3-xvda | tr -d ' ')" = xenlvm.domain.vm3
    check "start, from its own configuration" starts domuswitch start vm3
    lab_judge vm3
    check "it goes on" goes_on
    check "stop" lab_shutdown vm3
    check "its file system is clean" e2fsck -fn /dev/vg0/vm3-xvda
    lab_survived $((LAB_BOOT - 1))
    lab_points vm3
    lab_result records "$(lab_records vm3)"
    lab_leftovers
    ;;
esac

#!/bin/bash
# a member of a mirror fails: the DomU goes on on the good one, and mdmirror says so
# lab: suites=bookworm:full vg=3G,2G time=900
. /lab/lib.sh

lab_vg
lab_images_lv 1G
read -ra disks <<<"$LAB_DISKS"
sectors=$(blockdev --getsz "${disks[1]}")
# LVM must not see the same disk twice.
echo "devices { global_filter = [ \"r|^${disks[1]}$|\" ] }" >/etc/lvm/lvmlocal.conf
dmsetup create frail --table "0 $sectors linear ${disks[1]} 0"
pvcreate -q /dev/mapper/frail
vgcreate -q vg1 /dev/mapper/frail

# fails and heals: the disk of vg1 answers every request with an error, or works.
fails() {
    dmsetup load frail --table "0 $sectors error"
    dmsetup suspend --noflush frail
    dmsetup resume frail
}
heals() {
    dmsetup load frail --table "0 $sectors linear ${disks[1]} 0"
    dmsetup suspend --noflush frail
    dmsetup resume frail
}

# status WANT: the exit status of mdmirror status.
status() {
    local got=0
    mdmirror status vm3 >/run/status 2>/run/status.err || got=$?
    test "$got" = "$1" || { cat /run/status /run/status.err; return 1; }
}

# refused TEXT COMMAND...: a command that must fail so.
refused() {
    local text=$1 said
    shift
    if said=$("$@" 2>&1); then fail "$*: was not refused: $said"; fi
    [[ $said == *"$text"* ]] || fail "$*: said $said; want $text"
    echo "ok: $text"
}

# on_mirror: start the DomU on its mirror.
on_mirror() {
    sed 's|file:/srv/images/vm3.img|phy:/dev/mapper/xenlvm-vm3-xvda|' /etc/xen/vm3.cfg >/run/vm3.cfg
    local starts
    starts=$(lab_console vm3 2>/dev/null | grep -c '^GUEST verified disk=xvda ' || true)
    xl create -q /run/vm3.cfg
    wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' $((starts + 1)) || fail "it does not verify its records"
}
goes_on() { lab_wait_records vm3 $(($(lab_records vm3) + 20)) 90; }

lab_image /srv/images/vm3.img 256M
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 128M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_baseline

echo "the volume fails while it is being filled"
check "build" mdmirror build vm3
on_mirror
check "add" mdmirror add --to vg1 --bwlimit 4M vm3
check "recovering" status 10
fails
goes_on
wait_for 60 status 11 || fail "the failure is not seen"
refused "/dev/vg1/vm3-xvda failed; the domain goes on on /srv/images/vm3.img" mdmirror wait vm3
refused "/dev/vg1/vm3-xvda failed" mdmirror finish vm3
check "abort" mdmirror abort vm3
goes_on
check "stop" lab_shutdown vm3
heals
check "nothing is left" test -z "$(lab_new | grep -v 'vg1[/-]vm3-*xvda')"

echo "mdmirror is killed while it copies, and started again"
check "build" mdmirror build vm3
on_mirror
mdmirror add --to vg0 --presync --bwlimit 8M vm3 2>/run/add.err &
pid=$!
copying() { test -e /var/lib/xenlvm/vm3/xvda.bitmap; }
wait_for 60 copying || fail "it does not copy: $(cat /run/add.err)"
sleep 3
kill -KILL $pid
wait $pid || true
check "built, as before" status 11
check "add again" mdmirror add --to vg0 --presync vm3
check "wait" mdmirror wait vm3

echo "the guest reboots itself on the mirror"
starts=$(lab_console vm3 | grep -c '^GUEST verified disk=xvda ')
xl reboot vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' $((starts + 1)) || fail "it does not come back on the mirror"
check "still in sync" status 0
check "verify" mdmirror verify vm3

echo "the image fails when both are in sync"
dmsetup load xenlvm-vm3-xvda-source --table "0 $(blockdev --getsz /dev/mapper/xenlvm-vm3-xvda-source) error"
dmsetup suspend --noflush xenlvm-vm3-xvda-source
dmsetup resume xenlvm-vm3-xvda-source
goes_on
wait_for 60 status 11 || fail "the failure is not seen"
refused "failed; the domain goes on on /dev/vg0/vm3-xvda" mdmirror wait vm3
refused "failed; the domain goes on on /dev/vg0/vm3-xvda" mdmirror abort vm3
check "finish" mdmirror finish --no-verify vm3
goes_on
check "a second finish" mdmirror finish vm3
check "nothing to abort" mdmirror abort vm3
starts=$(lab_console vm3 | grep -c '^GUEST verified disk=xvda ')
xl reboot vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' $((starts + 1)) || fail "it does not come back on the volume"
check "stop" lab_shutdown vm3
lab_judge vm3
lab_leftovers 'lv vg[01]/vm3-xvda *' 'dm vg[01]-vm3--xvda'

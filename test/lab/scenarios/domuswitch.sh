#!/bin/bash
# domuswitch stops a real guest, moves its disks onto LVs, starts it there, and goes back when that fails
# lab: suites=bookworm,trixie:full vg=2G time=900
. /lab/lib.sh

# shows PATTERN: "show" prints a line that matches.
shows() {
    domuswitch show --quiet vm3 | grep -qP "$1" || { domuswitch show vm3; return 1; }
}

# refuses STATUS PATTERN COMMAND...: a command that must fail, and say why.
refuses() {
    local want=$1 pattern=$2 status=0
    shift 2
    "$@" >/run/said 2>&1 || status=$?
    cat /run/said
    [ "$status" = "$want" ] && grep -qE -- "$pattern" /run/said
}

lab_vg
lab_images_lv 1G
lab_image /srv/images/vm3.img 128M
lab_image /srv/images/data.img 64M
for lv in vm3-xvda:128M vm3-xvdb:64M; do
    lvcreate -q -y -W n -n "${lv%:*}" -L "${lv#*:}" vg0
done
LAB_DOMU_OPTIONS='' lab_domu vm3 file:/srv/images/vm3.img,xvda,w file:/srv/images/data.img,xvdb,w
cp /etc/xen/vm3.cfg /run/vm3.before
mkdir -p /etc/xen/auto
ln -s ../vm3.cfg /etc/xen/auto/vm3.cfg
lab_baseline

# 1. on the images
check "a stopped domain is shown" shows '^vm3\txvda\t/srv/images/vm3.img\traw\tauto\tstopped\t-$'
check "it starts on its images" domuswitch start vm3
xenstore-ls -f /local/domain/0/backend
xl list
check "a running domain is shown" shows '^vm3\txvda\t/srv/images/vm3.img\traw\tphy\trunning\t/srv/images/vm3.img$'
check "a second start does nothing" domuswitch start vm3
lab_wait_records vm3 20 120
check "a running domain is not switched" refuses 3 'go on writing to its old disk' domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda

# 2. onto the LVs
check "it stops" domuswitch stop vm3
check "its loops are gone" test -z "$(losetup --list --noheadings)"
for disk in vm3-xvda:vm3 vm3-xvdb:data; do
    dd if="/srv/images/${disk#*:}.img" of="/dev/vg0/${disk%:*}" bs=1M oflag=direct status=none
done
lvchange --addtag xenlvm.incomplete vg0/vm3-xvda
check "an incomplete LV is refused" refuses 3 'is not complete' domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda
lvchange --deltag xenlvm.incomplete vg0/vm3-xvda
check "a small LV is refused" refuses 3 'it has 64' domuswitch apply vm3 xvda=/dev/vg0/vm3-xvdb
check "a dry run shows the change" domuswitch apply --dry-run vm3 xvda=/dev/vg0/vm3-xvda xvdb=/dev/vg0/vm3-xvdb
check "a dry run touches nothing" cmp /etc/xen/vm3.cfg /run/vm3.before
printf 'vm3\txvda\t/srv/images/vm3.img\t/dev/vg0/vm3-xvda\tcopied\nvm3\txvdb\t/srv/images/data.img\t/dev/vg0/vm3-xvdb\tcopied\n' >/run/lines
check "lines without a recorded copy are refused" refuses 3 'no copy of /srv/images/vm3.img onto it is recorded' domuswitch apply - </run/lines
exec 9</dev/vg0/vm3-xvdb
check "an open LV is refused" refuses 3 'cannot write to /dev/vg0/vm3-xvdb: somebody has it open' domuswitch apply vm3 xvdb=/dev/vg0/vm3-xvdb
exec 9<&-
mount -o ro,noload /dev/vg0/vm3-xvda /mnt
check "a mounted LV is refused" refuses 3 'it is mounted on /mnt' domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda
umount /mnt
printf 'name = "vm4"\ndisk = [ "phy:/dev/mapper/vg0-vm3--xvda,xvda,w" ]\n' >/etc/xen/vm4
check "an LV of another configuration is refused" refuses 3 'the configuration /etc/xen/vm4 has it' domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda
rm /etc/xen/vm4
check "who made the copies names the LVs" domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda xvdb=/dev/vg0/vm3-xvdb
cp /etc/xen/vm3.cfg /run/vm3.after
check "the link in auto is a link" test "$(readlink /etc/xen/auto/vm3.cfg)" = ../vm3.cfg
check "nothing else lies in auto" test "$(ls -A /etc/xen/auto)" = vm3.cfg
check "a second time nothing is to do" refuses 0 'nothing to do' domuswitch apply - </run/lines

# 3. a start that fails: a kernel that xl cannot load
kernel=/boot/vmlinuz-$(uname -r)
mv "$kernel" "$kernel.away"
check "a failed start goes back" refuses 1 'has its previous disks back' domuswitch start vm3
mv "$kernel.away" "$kernel"
check "the configuration is the previous one" cmp /etc/xen/vm3.cfg /run/vm3.before
check "no domain is left" refuses 0 'nothing to do' domuswitch stop vm3

# a guest that never connects its disks: paused, looked at, destroyed
sed -i 's/^extra = "/&initcall_blacklist=xlblk_init /' /etc/xen/vm3.cfg
cp /etc/xen/vm3.cfg /run/vm3.driverless
check "applied for a guest without a driver" domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda xvdb=/dev/vg0/vm3-xvdb
check "its start goes back" refuses 1 'has its previous disks back' domuswitch start --timeout 5s vm3
check "because it had no disk" grep -q 'it did not connect disk xvda' /run/said
check "its configuration is the previous one" cmp /etc/xen/vm3.cfg /run/vm3.driverless
check "it is gone" refuses 0 'nothing to do' domuswitch stop vm3
check "and its LVs are free" test "$(lvs --noheadings -o lv_device_open vg0/vm3-xvda | tr -d ' ')" = ""
cp /run/vm3.before /etc/xen/vm3.cfg

# 4. on the LVs
check "applied again" domuswitch apply vm3 xvda=/dev/vg0/vm3-xvda xvdb=/dev/vg0/vm3-xvdb
before=$(lab_records vm3)
check "it starts on its LVs" domuswitch start vm3
check "it has the LVs" shows '^vm3\txvda\t/dev/vg0/vm3-xvda\traw\tphy\trunning\t/dev/vg0/vm3-xvda$'
check "no loop is used" test -z "$(losetup --list --noheadings)"
lab_wait_records vm3 $((before + 20)) 120
check "nothing was lost" test "$(lab_console vm3 | grep -cE '^GUEST (LOST|FAIL)')" = 0
check "no way back by accident" refuses 3 'it runs on /dev/vg0/vm3-xvda' domuswitch revert vm3

# 5. a guest that does not listen, and the way back
xl pause vm3
check "a paused guest is not stopped" refuses 3 'it is paused' domuswitch stop vm3
check "a deaf guest is waited for, then destroyed" domuswitch stop --timeout 3s --destroy vm3
check "its LVs are free" test "$(lvs --noheadings -o lv_device_open vg0/vm3-xvda | tr -d ' ')" = ""
check "still no way back by accident" refuses 3 'it has run on its new disks' domuswitch revert vm3
check "back when told so" domuswitch revert --yes vm3
check "the configuration is the previous one again" cmp /etc/xen/vm3.cfg /run/vm3.before
check "the guest starts on its images" domuswitch start vm3
check "and stops" domuswitch stop --config /etc/xen/vm3.cfg vm3
lab_leftovers

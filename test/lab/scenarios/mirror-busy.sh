#!/bin/bash
# a DomU that never stops writing while its volume is filled: mdmirror wait says that it takes long, and what helps
# lab: suites=bookworm:full vg=4G,3G time=900
. /lab/lib.sh

lab_vg
lab_images_lv 2560M
read -ra disks <<<"$LAB_DISKS"
sectors=$(blockdev --getsz "${disks[1]}")
# LVM must not see the same disk twice. A write to the volume takes as long as on a
# disk that others keep busy, too.
echo "devices { global_filter = [ \"r|^${disks[1]}$|\" ] }" >/etc/lvm/lvmlocal.conf
modprobe dm-delay
dmsetup create far --table "0 $sectors delay ${disks[1]} 0 0 ${disks[1]} 0 500"
pvcreate -q /dev/mapper/far
vgcreate -q vg1 /dev/mapper/far
lab_image /srv/images/vm3.img 2G
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_baseline
check "build" mdmirror build vm3
sed 's|file:/srv/images/vm3.img|phy:/dev/mapper/xenlvm-vm3-xvda|' /etc/xen/vm3.cfg >/run/vm3.cfg
xl create -q /run/vm3.cfg
lab_wait_records vm3 10 120
lab_tell vm3 fill big 128M
while [ ! -e /run/enough ]; do lab_tell vm3 rewrite big 0 128M; done &
writes=$!
check "add" mdmirror add --to vg1 vm3

mdmirror wait vm3 >/run/stdout 2>/run/stderr &
waits=$!
warned() { grep -q ': hint: ' /run/stderr; }
wait_for 120 warned || fail "mdmirror wait does not say that it takes long: $(cat /run/stderr /proc/mdstat)"
check "it says how long" grep -E 'disk xvda of vm3: its mirror needs .* more, at .* a second: the domain keeps the disks busy' /run/stderr
hint=$(sed -n 's/.*hint: to let md take more from the domain: //p' /run/stderr)
check "and what helps" grep -E '^echo 102400 >/sys/block/md[0-9]+/md/sync_speed_min$' <<<"$hint"
slow=$(cat /sys/block/md*/md/sync_speed)
eval "$hint"
faster() { ((2 * $(cat /sys/block/md*/md/sync_speed) > 3 * slow)); }
wait_for 120 faster || fail "it goes no faster than $slow KiB a second: $(cat /proc/mdstat)"
echo "ok: $(cat /sys/block/md*/md/sync_speed) KiB a second after $slow"
# The rest need not take that long here.
dmsetup load far --table "0 $sectors linear ${disks[1]} 0"
dmsetup suspend --noflush far
dmsetup resume far
check "then it ends" wait "$waits"
check "and has said so once" test "$(grep -c ': hint: ' /run/stderr)" = 1
touch /run/enough
check "while the domain writes on" wait "$writes"
check "both are equal: finish" mdmirror finish vm3
lab_wait_records vm3 $(($(lab_records vm3) + 20)) 60
check "stop" lab_shutdown vm3
check "start on the volume" lab_start vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 2 || fail "it does not verify its records"
check "stop" lab_shutdown vm3
lab_judge vm3
lab_leftovers 'lv vg1/vm3-xvda xenlvm.domain.vm3' 'dm vg1-vm3--xvda'

#!/bin/bash
# a running DomU's two volumes move to two other pools, each when it is told to, without a reboot
# lab: suites=bookworm:full vg=2G,1G,1G time=900
. /lab/lib.sh

lab_vg
lab_vg vg_sata 2
lab_vg vg_sas 3
for disk in xvda xvdb; do
    lvcreate -q -y -n vm3-$disk -L 192M vg0
    mkfs.ext4 -q /dev/vg0/vm3-$disk
done
LAB_DOMU_OPTIONS=lab.disks=xvdb lab_domu vm3 phy:/dev/vg0/vm3-xvda,xvda,w phy:/dev/vg0/vm3-xvdb,xvdb,w
check "start" lab_start vm3
lab_wait_records vm3 30 120 xvdb
lab_baseline
boots() { lab_console vm3 | grep -c '^GUEST verified disk=xvda '; }
before=$(boots)

lvcreate -q -y -s -n old -L 64M vg0/vm3-xvda
if said=$(mdmirror build --to xvda=vg_sata vm3 2>&1); then fail "a volume with a snapshot was taken"; fi
[[ $said == *"its snapshot vg0/old would stay behind"* ]] || fail "said: $said"
lvremove -q -y vg0/old
check "a domain without images has nothing to mirror" mdmirror build vm3
test -z "$(lab_new)" || fail "left: $(lab_new)"

check "the mirror of the data disk alone" mdmirror build --to xvdb=vg_sas /dev/vg0/vm3-xvdb
check "the system disk moves to vg_sata" image-to-lv --plan live --prepare --to xvda=vg_sata --to xvdb=vg_sas vm3
check "and the data disk to vg_sas" image-to-lv --plan live --cutover vm3
check "without a reboot" test "$(boots)" = "$before"
for disk in xvda xvdb; do
    grep "$disk" /etc/xen/vm3.cfg
done
grep -q /dev/vg_sata/vm3-xvda,xvda /etc/xen/vm3.cfg || fail "xvda is not on vg_sata"
grep -q /dev/vg_sas/vm3-xvdb,xvdb /etc/xen/vm3.cfg || fail "xvdb is not on vg_sas"
lab_wait_records vm3 $(($(lab_records vm3 xvdb) + 30)) 120 xvdb
check "stop" lab_shutdown vm3
for disk in vg_sata/vm3-xvda vg_sas/vm3-xvdb; do
    check "$disk is clean" e2fsck -fn "/dev/$disk"
done
check "start on the new pools" lab_start vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' $((before + 1)) || fail "it does not verify its records"
check "stop" lab_shutdown vm3
lab_judge vm3
lab_leftovers 'lv vg_*/vm3-xvd? xenlvm.domain.vm3' 'dm vg_*-vm3--xvd?'
